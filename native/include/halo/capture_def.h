/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Captures and traces: frames that a filter lets through are copied, with what became of them, into a ring in memory of its own
 * (a sealed memfd for each capture and slot). The worker writes, who has asked for it reads, and neither waits: what has no room is
 * counted. Host byte order.
 */

enum halo_capture_limit {
	HALO_MAX_CAPTURES = 4, /* at once in a worker, traces among them */
	HALO_MAX_FILTER_STEPS = 4096,
	HALO_FILTER_WORDS = 16, /* of memory that a filter has */
	HALO_CAPTURE_HEADER_OCTETS = 4096,
	HALO_CAPTURE_MIN_OCTETS = 65536, /* of a ring's records; a power of two */
	HALO_CAPTURE_MAX_OCTETS = 1 << 30,
	HALO_MAX_SNAP_OCTETS = 16384,
	HALO_MAX_TRACED = 64, /* packets under way at once, of all traces */
	HALO_MAX_TRACE_EVENTS = 24,
	HALO_TRACE_SNAP_OCTETS = 256,
	HALO_TRACE_NOTE_OCTETS = 48, /* of a note of Python's, with the 0 behind it */
};

enum halo_capture_ring_magic { HALO_CAPTURE_MAGIC = 0x68636170, HALO_CAPTURE_VERSION = 1 };

enum halo_capture_point {
	HALO_POINT_RX = 1,   /* as it came off the rx ring */
	HALO_POINT_TX = 2,   /* as it was put on the tx ring to leave by a port */
	HALO_POINT_DROP = 4, /* as it was when the worker dropped it */
	HALO_POINT_TRACE = 8,
};

/* One instruction of the classic BPF, laid out as in the kernel's struct sock_filter. */
struct halo_filter_step {
	uint16_t code;
	uint8_t jt; /* instructions to skip when the condition holds */
	uint8_t jf; /* and when it does not */
	uint32_t k;
};

/* The first page of a ring; records lie behind it. Positions are octets since the start, and never wrap. */
struct halo_capture_ring {
	uint32_t magic;       /* supervisor, once */
	uint32_t version;     /* supervisor, once */
	uint64_t size_octets; /* supervisor, once: of the records, a power of two */
	uint64_t reserved1[6];
	uint64_t producer; /* worker */
	uint64_t records;  /* worker: that it wrote */
	uint64_t lost;     /* worker: that had no room */
	uint64_t reserved2[5];
	uint64_t consumer; /* reader */
	uint64_t reserved3[7];
};

/* At a multiple of 16 octets; behind it its events, then the frame. */
struct halo_capture_record {
	uint32_t size;     /* from here to the next one */
	uint8_t point;     /* enum halo_capture_point; 0: nothing, up to the end of the ring */
	uint8_t verdict;   /* enum halo_verdict */
	uint8_t reason;    /* enum halo_drop, with verdict drop */
	uint8_t events;    /* of a trace */
	uint64_t time_ns;  /* CLOCK_MONOTONIC, once a burst */
	uint32_t length;   /* octets of the frame */
	uint32_t captured; /* of them, those that are here */
	uint16_t port;     /* that it came in by; HALO_NO_PORT: made here */
	uint16_t tx_port;  /* that it leaves by; HALO_NO_PORT */
	uint16_t interface;
	uint16_t tx_interface;
};

enum halo_trace_stage {
	HALO_TRACE_PARSE = 0,
	HALO_TRACE_INPUT = 1,
	HALO_TRACE_ROUTE = 2,
	HALO_TRACE_FORWARD = 3,
	HALO_TRACE_HOOK = 4,   /* `detail` is its number */
	HALO_TRACE_FINISH = 5, /* verdicts become descriptors */
	HALO_TRACE_PYTHON = 6, /* what the Python stack says, in `note` */
};

/* What a packet was behind a stage. */
struct halo_trace_event {
	uint8_t stage; /* enum halo_trace_stage */
	uint8_t verdict;
	uint8_t reason;
	uint8_t detail; /* parse: 1, another worker handed it over; hook: its number; route: enum halo_neighbor_state, or 0 */
	uint16_t interface;
	uint16_t tx_interface;
	uint16_t tx_port;
	uint16_t length;
	uint32_t src; /* IPv4 addresses, as they are now */
	uint32_t dst;
	uint32_t next_hop; /* 0: none yet */
	uint32_t socket;
	uint8_t ttl;
	uint8_t rewritten; /* hook: 1, it has changed the frame */
	uint8_t reserved[2];
	char note[HALO_TRACE_NOTE_OCTETS];
};

/* 0, or the number of the instruction that can not be, plus 1. No program is an error of its first. */
uint32_t halo_filter_check(const struct halo_filter_step *step, uint32_t count);
/* What a checked filter says of a frame: 0 is no. */
uint32_t halo_filter_run(const struct halo_filter_step *step, uint32_t count, const uint8_t *frame, uint32_t length);
/* The same as machine code, for tests. 0: that was not possible, of this filter, this frame, or here. */
int halo_filter_run_translated(const struct halo_filter_step *step, uint32_t count, const uint8_t *frame,
			       uint32_t length, uint32_t *said);
/*
 * What a worker asks of a whole burst first, for tests: `found` of a packet is 1 when the filter may let it through, as it was parsed,
 * plus 2 when it may as it is now. Never 0 for one that it does let through. -ENOTSUP: there is no such thing, of this filter or here.
 */
int halo_filter_sift(const struct halo_filter_step *step, uint32_t count, const struct halo_packet *packets,
		     uint32_t packet_count, const uint8_t *pool, uint32_t pool_octets, uint8_t *found);

/*
 * From now on copy frames into a ring of `size_octets`, header included, that stays mapped until the capture is removed. A filter of
 * no steps lets everything through. `ports`: a bit for each, 0: all. Returns its place; -ENOSPC, -ENOMEM, -EINVAL.
 */
int halo_worker_add_capture(struct halo_worker *worker, struct halo_capture_ring *ring, uint64_t size_octets,
			    const struct halo_filter_step *step, uint32_t count, uint32_t points, uint64_t ports,
			    uint32_t snap_octets);
/* Of punt `punt`, while it is Python's: what happened to it. 1: it is traced; 0: nobody wants to know. */
int halo_worker_trace_note(struct halo_worker *worker, uint32_t punt, const char *text);
/* Copy no more, and forget the ring. -ENOENT: there was none. */
int halo_worker_remove_capture(struct halo_worker *worker, uint32_t place);

/* For the reader: how far the worker has written, with everything before it; and that it has read so far. */
uint64_t halo_capture_produced(const struct halo_capture_ring *ring);
void halo_capture_consume(struct halo_capture_ring *ring, uint64_t position);
