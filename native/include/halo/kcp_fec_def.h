/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Forward error correction under KCP, compatible with kcp-go's: after `data` datagrams follow `parity` more, and whichever
 * `data` of them all arrive, the lost ones are made from them. No I/O, no clock; native/kcp/fec.c has the theory of operation.
 * One encoder, or one decoder, has one caller at a time. Functions return 0 or a count, or a negative errno.
 */

enum halo_kcp_fec_limit {
	HALO_KCP_FEC_HEADER = 6,       /* octets: number, type */
	HALO_KCP_FEC_OVERHEAD = 8,     /* with the size in front of what a data datagram carries */
	HALO_KCP_FEC_MAX_SHARDS = 255, /* of a group, data and parity */
	HALO_KCP_FEC_MAX_OCTETS = 65507,
	HALO_KCP_FEC_MAX_GROUPS = 64,
};

enum halo_kcp_fec_type {
	HALO_KCP_FEC_DATA = 0xf1,
	HALO_KCP_FEC_PARITY = 0xf2,
};

struct halo_kcp_fec_settings {
	uint32_t data;   /* shards of a group, 1 or more */
	uint32_t parity; /* 1 or more; HALO_KCP_FEC_MAX_SHARDS with data at most */
	uint32_t octets; /* of the longest datagram, the overhead among them */
	uint32_t
		gap_ms; /* encoder: no parity for a group whose last datagram came so long after the one before; 0: always */
	uint32_t groups; /* decoder: that it keeps, of those not yet whole; HALO_KCP_FEC_MAX_GROUPS at most */
	uint32_t tune;   /* decoder: != 0: when the peer's numbers of shards are others, find them out and take them */
	uint32_t first;  /* encoder: the first number, rounded up to a group's begin; 0, or what a predecessor said */
};

struct halo_kcp_fec_counters {
	uint64_t data; /* shards sent, or received */
	uint64_t parity;
	uint64_t skipped;    /* encoder: groups without parity, for a gap */
	uint64_t whole;      /* decoder: groups of which all data came */
	uint64_t recovered;  /* decoder: datagrams made from others */
	uint64_t repeated;   /* decoder: shards that had come before */
	uint64_t late;       /* decoder: shards of a group that was done with */
	uint64_t incomplete; /* decoder: groups given up with data missing */
	uint64_t errors;     /* decoder: too short, too long, of another type, a number or a size that can not be */
	uint64_t misplaced;  /* decoder: data where parity belongs, or the reverse: the peer has other settings */
	uint64_t tuned;      /* decoder: times that the peer's settings were taken */
};

/* NULL, or the name of the first field that can not be. */
const char *halo_kcp_fec_check(const struct halo_kcp_fec_settings *settings);

struct halo_kcp_fec_encoder;

/* NULL: no memory, or settings that can not be. */
struct halo_kcp_fec_encoder *halo_kcp_fec_encoder_create(const struct halo_kcp_fec_settings *settings);
void halo_kcp_fec_encoder_free(struct halo_kcp_fec_encoder *encoder);
/* Returns how many datagrams are to be sent now: 1, or 1 and the parity. -EMSGSIZE: it is too long, with the overhead. */
int64_t halo_kcp_fec_encode(struct halo_kcp_fec_encoder *encoder, const uint8_t *octets, uint64_t length,
			    uint32_t now_ms);
/* The i-th of them, until the next call; returns its octets. -ENOENT: there is none. */
int64_t halo_kcp_fec_encoded(const struct halo_kcp_fec_encoder *encoder, uint32_t i, const uint8_t **octets);
/* The number that a successor begins with. */
uint32_t halo_kcp_fec_encoder_next(const struct halo_kcp_fec_encoder *encoder);
void halo_kcp_fec_encoder_counters(const struct halo_kcp_fec_encoder *encoder, struct halo_kcp_fec_counters *counters);

struct halo_kcp_fec_decoder;

struct halo_kcp_fec_decoder *halo_kcp_fec_decoder_create(const struct halo_kcp_fec_settings *settings);
void halo_kcp_fec_decoder_free(struct halo_kcp_fec_decoder *decoder);
/*
 * Returns how many datagrams there are for KCP: what this one carries, if it is data, and those that it made whole.
 * -EINVAL: it is none of ours, or damaged; -EMSGSIZE: longer than any that the settings allow. A datagram may come twice:
 * late, and before that made from others.
 */
int64_t halo_kcp_fec_decode(struct halo_kcp_fec_decoder *decoder, const uint8_t *octets, uint64_t length);
/* The i-th of them, until the next call, and as long as the octets given to decode stay; returns its octets. */
int64_t halo_kcp_fec_decoded(const struct halo_kcp_fec_decoder *decoder, uint32_t i, const uint8_t **octets);
/* What it takes the peer's settings for: those it was made with, or tuned to. */
void halo_kcp_fec_decoder_shards(const struct halo_kcp_fec_decoder *decoder, uint32_t *data, uint32_t *parity);
void halo_kcp_fec_decoder_counters(const struct halo_kcp_fec_decoder *decoder, struct halo_kcp_fec_counters *counters);
