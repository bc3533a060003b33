/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The worker's fast path, as its Python sees it. One struct halo_worker per process, used by one thread.
 * Functions return 0 or a count, or a negative errno.
 */

enum halo_fastpath_limit {
	HALO_MAX_PUNTS = HALO_WIDE_BURST, /* a poll returns after the burst that punted, so one burst at most */
	HALO_MAX_DEBUG = 64,
	HALO_DEBUG_OCTETS = 96,
	HALO_MAX_TOUCHED = 256, /* neighbors that one poll tells of */
	HALO_NO_PORT = 0xffff,
	HALO_NO_INTERFACE = 0xffff,
	HALO_HOLD_LIMIT = 64,      /* packets punted for one neighbor while it is looked for */
	HALO_RESOLVE_RATE = 20000, /* punts per second for neighbors that are to be looked for, and at once: */
	HALO_RESOLVE_BURST = 4096,
	HALO_ERROR_RATE = 1000, /* punts per second that end in an ICMP error, and at once: */
	HALO_ERROR_BURST = 1000,
	HALO_REPORT_S = 15, /* a foreign neighbor's uses are told of this often at most */
	HALO_MAX_NEIGHBORS = 262144,
};

enum halo_poll_reason {                      /* why halo_worker_poll() came back; several bits may be set */
			HALO_POLL_PUNTS = 1, /* punts[0 .. punt_count) wait for Python */
			HALO_POLL_DEADLINE = 2,
			HALO_POLL_FDS = 4,       /* the epoll fd has events that are not our doorbell */
			HALO_POLL_ENABLED = 8,   /* the slot was enabled since the last call */
			HALO_POLL_EPOCH = 16,    /* the tables changed since the last call */
			HALO_POLL_DISABLED = 32, /* the slot was disabled since the last call */
			HALO_POLL_BROKEN = 64, /* the driver's ring indices make no sense: end, and be started again */
			HALO_POLL_TOUCHED = 128,   /* touched[0 .. touched_count) */
			HALO_POLL_HOOK = 256,      /* hook_packets[0 .. hook_count) wait for a hook of Python's */
			HALO_POLL_DATAGRAMS = 512, /* datagrams are parked (socket_def.h) */
			HALO_POLL_RAW = 1024,      /* frames wait that halo_worker_raw_want asked for */
			HALO_POLL_BLAST = 2048,    /* one has sent its count */
};

enum halo_neighbor_state {
	HALO_NEIGHBOR_INCOMPLETE = 1, /* is looked for: packets are punted, up to a bound */
	HALO_NEIGHBOR_REACHABLE = 2,
	HALO_NEIGHBOR_STALE = 3,  /* as reachable; its next use is told of, once */
	HALO_NEIGHBOR_FAILED = 4, /* did not answer: packets are dropped */
	HALO_NEIGHBOR_REPORT = 5, /* as reachable, learned by another worker; uses are told of now and then */
};

/* A neighbor that was used and that Python asked to hear of. */
struct halo_touched {
	uint32_t address; /* host order */
	uint16_t interface;
	uint16_t reserved;
};

/* Host order. */
struct halo_flow {
	uint32_t src;
	uint32_t dst;
	uint16_t src_port;
	uint16_t dst_port;
	uint8_t protocol;
	uint8_t reserved[3];
};

/* A target, of a group the one that the flow goes to: past members that have failed. */
struct halo_route_found {
	uint32_t kind; /* enum halo_target_kind */
	uint32_t interface;
	uint32_t address;
};

struct halo_worker_setup {
	void *pool;             /* mapped for reading and writing */
	struct halo_slot *slot; /* mapped for reading and writing */
	const struct halo_tables *tables;
	const struct halo_fib *fib; /* NULL: no routes; own addresses only */
	int doorbell_fd;            /* ours */
	int driver_doorbell_fd;     /* of the home lcore */
	int epoll_fd;               /* of the event loop; holds doorbell_fd */
	uint32_t idle_policy;       /* enum halo_idle_policy */
	uint32_t spin_ns;           /* adaptive: how long to poll in vain before sleeping */
	uint32_t debug;             /* keep the first octets of frames for the debug log */
	uint32_t python_percent;    /* of the worker's time that Python may spend on punts; 0: all of it */
};

struct halo_debug_frame {
	uint32_t length;
	uint8_t port;
	uint8_t verdict;
	uint8_t reason;
	uint8_t captured;
	uint8_t octets[HALO_DEBUG_OCTETS];
};

struct halo_poll_result {
	uint32_t reasons;
	uint32_t punt_count;
	uint32_t debug_count;
	uint32_t debug_missed;
	uint32_t touched_count;
	uint32_t reserved;
	uint64_t burst_ns; /* when the last turn began, and took the punts off the ring; CLOCK_MONOTONIC */
	const struct halo_touched *touched;
	struct halo_packet *punts;
	struct halo_debug_frame *debug;
	uint32_t hook; /* its number */
	uint32_t hook_count;
	struct halo_packet *hook_packets; /* to be judged before the next poll, which goes on with them */
};

struct halo_worker;

const char *halo_drop_name(unsigned int reason);
const char *halo_drop_text(unsigned int reason);

int halo_worker_create(const struct halo_worker_setup *setup, struct halo_worker **worker);
void halo_worker_detach(struct halo_worker *worker);

/* Poll until Python is needed or now + timeout_ns has passed; timeout_ns < 0 waits for ever, 0 turns once. */
int halo_worker_poll(struct halo_worker *worker, int64_t timeout_ns, struct halo_poll_result *result);

/* End punt i: reason < 0 says that the frame was consumed, else it is counted as that drop. */
int halo_worker_finish_punt(struct halo_worker *worker, uint32_t i, int reason);
/* Send punt i (changed in place by Python) out of a port; offset may have moved into the headroom. */
int halo_worker_transmit_punt(struct halo_worker *worker, uint32_t i, uint32_t offset, uint32_t length, uint32_t port);
/* Give punt i to another slot. */
int halo_worker_hand_punt(struct halo_worker *worker, uint32_t i, uint32_t slot);
/* Copy a frame into a spare buffer and send it; -ENOBUFS, -EMSGSIZE are counted drops. */
int halo_worker_originate(struct halo_worker *worker, uint32_t port, const uint8_t *frame, uint32_t length);
/* Copy a frame into a spare buffer for another slot, which gets it as if it had come in by the port; counted drops as above. */
int halo_worker_hand_frame(struct halo_worker *worker, uint32_t slot, uint32_t port, const uint8_t *frame,
			   uint32_t length);
/* Count a drop that Python decided on and that ends no frame of ours (a packet that it held as octets). */
void halo_worker_count_drop(struct halo_worker *worker, uint32_t reason);
/* Count ICMP errors that Python's own limit kept back. */
void halo_worker_count_suppressed(struct halo_worker *worker, uint32_t count);
/* Publish what was put on the tx ring since the last poll, and ring the driver's doorbell if it sleeps. */
void halo_worker_flush(struct halo_worker *worker);
/* Frames of port `in` leave by port `out` with MAC addresses swapped and TTL decremented; out HALO_NO_PORT ends it. */
int halo_worker_set_macswap(struct halo_worker *worker, uint32_t in, uint32_t out);
/*
 * Share `port` with the kernel behind `twin`: what is not for us goes there, and what comes from there leaves by the port. `only`
 * (host order): of our addresses just this one is ours on that port; 0: all are.
 */
int halo_worker_set_twin(struct halo_worker *worker, uint32_t port, uint32_t twin, uint32_t only);
/* The interfaces as the fast path sees them now; valid until the next poll. */
const struct halo_interface_block *halo_worker_interfaces(const struct halo_worker *worker);
/*
 * What Python knows of a neighbor; the entry is made, or changed. `mac` may be NULL in the states that need none. -ENOENT: no
 * such interface; -ENOSPC: HALO_MAX_NEIGHBORS are there; -ENOMEM; -EINVAL: no such state, or a MAC address is missing.
 */
int halo_worker_set_neighbor(struct halo_worker *worker, uint32_t interface, uint32_t address, const uint8_t *mac,
			     uint32_t state);
/* Forget a neighbor: packets to it are punted, or handed to where it is looked for. -ENOENT: it was not there. */
int halo_worker_remove_neighbor(struct halo_worker *worker, uint32_t interface, uint32_t address);
/* How many neighbors are there; what stands at the end of an interface's life is removed with it. */
uint32_t halo_worker_neighbor_count(const struct halo_worker *worker);
/* Where a packet would go; called between polls. Ports are 0 where the protocol has none, and in fragments. */
void halo_worker_route(struct halo_worker *worker, const struct halo_flow *flow, struct halo_route_found *found);
/* Punts that Python has not yet ended. */
int halo_worker_held(const struct halo_worker *worker);

uint16_t halo_checksum(const uint8_t *octets, uint32_t length);

/* Give up root: groups, gid, uid, then every capability, with no-new-privs. keep_uid: only the capabilities. */
int halo_drop_privileges(uint32_t uid, uint32_t gid, int keep_uid);

/*
 * bench stages: run bursts as a poll does, and add up the cycles (of the time stamp counter, where there is one, else nanoseconds)
 * that each stage took: receive, parse, input, route, forward, finish. Returns how many frames there were.
 */
int64_t halo_bench_stages(struct halo_worker *worker, uint32_t bursts, uint64_t *cycles);
/* bench ring: move `count` descriptors in bursts; both return elapsed nanoseconds or a negative errno. */
int64_t halo_bench_produce(struct halo_ring_index *index, struct halo_descriptor *entry, uint32_t size, uint32_t burst,
			   uint64_t count, int64_t timeout_ns);
int64_t halo_bench_consume(struct halo_ring_index *index, struct halo_descriptor *entry, uint32_t size, uint32_t burst,
			   uint64_t count, int64_t timeout_ns, uint64_t *sum);
