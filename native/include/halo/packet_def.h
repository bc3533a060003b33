/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the stages of the fast path pass on for each packet of a burst, and what a burst hook sees as a NumPy structured
 * array. 128 octets: what every stage needs in the first 64, addresses in the second. Host byte order throughout.
 */

enum halo_verdict {
	HALO_VERDICT_NONE = 0,     /* not decided yet */
	HALO_VERDICT_TRANSMIT = 1, /* out of tx_port */
	HALO_VERDICT_DROP = 2,     /* reason says why */
	HALO_VERDICT_PUNT = 3,     /* the Python stack finishes it */
	HALO_VERDICT_HAND = 4,     /* to slot tx_port */
	HALO_VERDICT_CONSUME = 5,  /* ended here on purpose */
	HALO_VERDICT_DELIVER = 6,  /* to `socket` of this worker */
	HALO_VERDICT_RAW = 7,      /* to the application, as it came */
};

enum halo_stage {                         /* where hooks are, and where frames can be put in */
		  HALO_STAGE_INGRESS = 0, /* parsed; nothing decided */
		  HALO_STAGE_FORWARD = 1, /* goes on to another station: route, TTL and options have been looked at */
		  HALO_STAGE_EGRESS = 2,  /* leaves, as it is, by tx_port */
		  HALO_STAGE_COUNT = 3,
		  HALO_STAGE_TX = 3, /* to put in only: behind all hooks */
};

struct halo_packet {
	uint32_t offset;    /* of the frame in the pool */
	uint16_t length;    /* octets of the frame */
	uint8_t port;       /* that it came in by */
	uint8_t flags;      /* of its descriptor */
	uint8_t verdict;    /* enum halo_verdict */
	uint8_t reason;     /* enum halo_drop, with verdict drop */
	uint8_t ip_version; /* 4, or 0 where it is no IP packet */
	uint8_t ip_protocol;
	uint16_t ethertype; /* behind the VLAN tag, if there is one */
	uint16_t vlan;      /* VLAN id; 0 without a tag */
	uint16_t l3_offset; /* from the start of the frame */
	uint16_t l4_offset;
	uint16_t ip_length; /* total length of the IP packet */
	uint16_t fragment;  /* IPv4 flags and fragment offset */
	uint8_t ttl;
	uint8_t tos;
	uint16_t interface; /* index in the interface table; 0xffff: none */
	uint16_t tx_port;
	uint16_t src_port; /* UDP, TCP */
	uint16_t dst_port;
	uint16_t tx_interface; /* that it leaves by; 0xffff: none, or not known yet */
	uint32_t next_hop;     /* whose MAC address it gets, host order */
	uint32_t hash;
	uint32_t mark;         /* for hooks; starts as 0 */
	uint64_t timestamp_ns; /* CLOCK_MONOTONIC, once a burst */
	uint8_t plain;         /* 1: untagged IPv4 without options */
	uint8_t injected;      /* 0: received; else made by this worker, and 1 + the stage where it was put in */
	uint8_t rewritten;     /* 1: a hook has changed octets of the frame */
	uint8_t hooked;        /* the chain's: what hooks have done to it */
	uint32_t socket;       /* with verdict deliver */
	/* second 64 octets */
	uint32_t src[4]; /* IPv4: the first word */
	uint32_t dst[4];
	uint8_t icmp_type;
	uint8_t icmp_code;
	/* src_port and dst_port once more, while a hook looks (view_def.h): of a TCP packet, of a UDP packet, else 0 */
	uint16_t tcp_src_port;
	uint16_t tcp_dst_port;
	uint16_t udp_src_port;
	uint16_t udp_dst_port;
	uint8_t shown_protocol; /* whose ports these are, whatever the hook makes of ip_protocol */
	uint8_t reserved2[21];
};
