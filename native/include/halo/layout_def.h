/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Everything that lives in shared memory, the one truth for C and Python.
 *
 * Written in the subset that the C compiler and cffi's cdef() both parse after preprocessing: plain fields, explicit
 * padding, constants. layout.h wraps it with the asserts. Each field names its writer; nobody else stores to it. Octets
 * are host order. "line" is a cache line of 64 octets; words that different processes write stand 128 octets apart,
 * because the hardware prefetches lines in pairs.
 *
 * Any change here raises HALO_LAYOUT_VERSION.
 */

enum halo_constant {
	HALO_LAYOUT_VERSION = 8,
	HALO_BOOT_ID_OCTETS = 16,
	/* pool */
	HALO_CHUNK_OCTETS = 2097152, /* buffers never cross a chunk, whatever the page size */
	HALO_METADATA_OCTETS = 64,   /* at the start of each buffer */
	HALO_HEADROOM_OCTETS = 128,  /* between metadata and the frame of a port; RTE_PKTMBUF_HEADROOM */
	HALO_DATA_OCTETS = 2048,     /* room for the frame, unless --mtu asks for more */
	HALO_MIN_FRAME_OCTETS = 14,  /* an Ethernet header */
	/* limits */
	HALO_MAX_SLOTS = 64,
	HALO_NO_SLOT = 255, /* where a slot is named */
	HALO_MAX_PORTS = 64,
	HALO_MAX_QUEUES = 64, /* of a port */
	HALO_MAX_LCORES = 32,
	HALO_MAX_INTERFACES = 256,
	HALO_MAX_ADDRESSES = 1024, /* of all interfaces together */
	HALO_MAX_XSTATS = 128,
	HALO_BURST = 64,
	HALO_WIDE_BURST = 512, /* where Python looks at packets: each of its calls costs as much as many of them */
	HALO_MAX_HOOKS = 32,   /* of a worker */
	HALO_HOOK_NAME_OCTETS = 48,
	HALO_MAX_SOCKETS = 16384, /* of all workers together */
	HALO_SPARE_SIZE = 512,    /* entries of a slot's spare ring */
	HALO_DROP_LIMIT = 128,    /* room for drop reasons in each counter block */
	HALO_BURST_BUCKETS = 16,
	HALO_LAG_BUCKETS = 24,
	HALO_TIMED_STAGES = 16, /* room for them */
	HALO_TIMED_EVERY = 64,  /* bursts: one of so many is timed */
};

enum halo_region_kind {
	HALO_REGION_OWNERS = 1,
	HALO_REGION_SLOT = 2,
	HALO_REGION_TABLES = 3,
	HALO_REGION_PORTS = 4,
	HALO_REGION_FIB = 5,
	HALO_REGION_ROUTES = 6,
};

/* First 64 octets of every region but the pool. Writer: the supervisor that created it, before anybody else maps it. */
struct halo_region_header {
	uint64_t magic;          /* HALO_MAGIC */
	uint32_t layout_version; /* HALO_LAYOUT_VERSION */
	uint32_t kind;           /* enum halo_region_kind */
	uint64_t size_octets;    /* of the whole region */
	uint8_t boot_id[16];     /* of the kernel that it was made under */
	uint64_t generation;     /* of the instance: differs for each run */
	uint32_t creator_pid;
	uint32_t reserved;
	uint64_t creator_start_ticks; /* field 22 of /proc/<pid>/stat: tells a reused pid */
};

/* Where buffers lie in the pool. Buffer i starts at (i / per_chunk) * HALO_CHUNK_OCTETS + (i % per_chunk) * stride. */
struct halo_pool_geometry {
	uint64_t size_octets;
	uint32_t buffer_count;
	uint32_t buffers_per_chunk;
	uint32_t stride_octets; /* metadata + headroom + data; a multiple of 64, odd in lines */
	uint32_t data_octets;   /* behind metadata and headroom */
	uint32_t reserved[2];
};

/* ---- descriptors ---------------------------------------------------------------------------------------------- */

enum halo_action {                           /* low two bits of the flags of a tx descriptor */
		   HALO_ACTION_TRANSMIT = 0, /* port: where to */
		   HALO_ACTION_RELEASE = 1,  /* give the buffer back */
		   HALO_ACTION_HAND = 2,     /* port: number of the slot that gets the frame */
		   HALO_ACTION_MASK = 3,
};

enum halo_descriptor_flag {
	HALO_DESCRIPTOR_METADATA = 4, /* struct halo_metadata of the buffer is valid */
	HALO_DESCRIPTOR_HANDED = 8,   /* rx only: came from another worker, port is where the frame came in */
	HALO_DESCRIPTOR_FLAGS = 15,   /* every bit that means something */
};

struct halo_descriptor {
	uint32_t offset; /* of the frame's first octet in the pool */
	uint16_t length; /* octets of the frame */
	uint8_t port;
	uint8_t flags;
};

enum halo_metadata_flag {
	HALO_METADATA_RSS_HASH = 1, /* rx: hash is the port's */
	HALO_METADATA_IP_CHECKSUM_GOOD = 2,
	HALO_METADATA_IP_CHECKSUM_BAD = 4,
	HALO_METADATA_L4_CHECKSUM_GOOD = 8,
	HALO_METADATA_L4_CHECKSUM_BAD = 16,
	HALO_METADATA_VLAN = 32,           /* vlan_tci was stripped from, or is to be inserted into, the frame */
	HALO_METADATA_TX_IP_CHECKSUM = 64, /* tx: the port shall fill in the IPv4 header checksum */
	HALO_METADATA_TX_UDP_CHECKSUM = 128,
	HALO_METADATA_TX_TCP_CHECKSUM = 256,
};

/* First 64 octets of a buffer, for what does not fit in a descriptor. Writer: the owner of the buffer. */
struct halo_metadata {
	uint32_t flags;
	uint32_t hash;
	uint16_t vlan_tci;
	uint8_t l2_length;
	uint8_t l3_length;
	uint32_t source_slot;  /* HANDED: the slot that handed it over */
	uint64_t timestamp_ns; /* CLOCK_MONOTONIC */
	uint8_t port; /* of a frame that a worker made and hands over: the port that it is to have come in by */
	uint8_t reserved[39];
};

/* ---- rings ---------------------------------------------------------------------------------------------------- */

/* Indices run freely over 2^32 and are masked on use. Rx and tx are seen from the worker. */
struct halo_ring_index {
	uint32_t producer; /* writer: the producing side */
	uint32_t claim;    /* writer: the producing side; entries up to here are written but not yet published */
	uint8_t pad_producer[120];
	uint32_t consumer; /* writer: the consuming side */
	uint8_t pad_consumer[124];
};

/* ---- slot.<n> ------------------------------------------------------------------------------------------------- */

enum halo_slot_state {
	HALO_SLOT_DISABLED = 0, /* nobody may touch the rings but the driver */
	HALO_SLOT_ENABLED = 1,
	HALO_SLOT_BROKEN = 2, /* the worker's indices made no sense; waits for the life cycle to be walked */
};

enum halo_worker_state {
	HALO_WORKER_ABSENT = 0,
	HALO_WORKER_ATTACHED = 1, /* has mapped everything and polls */
	HALO_WORKER_STOPPING = 2,
};

enum halo_place { /* where the worker's thread is, for hang limits */
		  HALO_PLACE_NATIVE = 0,
		  HALO_PLACE_PYTHON = 1,
		  HALO_PLACE_ASLEEP = 2,
};

enum halo_idle_policy {
	HALO_IDLE_POLL = 0,
	HALO_IDLE_ADAPTIVE = 1,
	HALO_IDLE_SLEEP = 2,
};

/* Writer: the supervisor, before the region is shared. Read once, at attach, into private memory. */
struct halo_slot_geometry {
	uint32_t slot;
	uint32_t ring_size; /* entries of rx; a power of two */
	uint32_t tx_size;   /* entries of tx; at least buffer_bound, so that tx can not overflow */
	uint32_t spare_size;
	uint32_t rx_offset; /* of the descriptors, from the start of the region */
	uint32_t tx_offset;
	uint32_t spare_offset;
	uint32_t buffer_bound; /* buffers that the slot may have outstanding */
	struct halo_pool_geometry pool;
};

/* Writer: the driver. Rarely written, read by the worker once a burst. */
struct halo_slot_life {
	uint32_t state;           /* enum halo_slot_state */
	uint32_t generation;      /* of the rings: +1 at each walk of the life cycle */
	uint32_t driver_sleeping; /* the home lcore waits on its doorbell */
	uint32_t home_lcore;
	uint8_t pad[112];
};

/* Writer: the worker. Its own line: the driver reads it after each publish. */
struct halo_slot_doorbell {
	uint32_t worker_sleeping;
	uint8_t pad[124];
};

/* Writer: the worker. */
struct halo_slot_status {
	uint32_t state; /* enum halo_worker_state */
	uint32_t pid;
	uint32_t place;           /* enum halo_place */
	uint32_t ring_generation; /* that it attached to */
	uint64_t progress;        /* +1 at each turn of the poll loop, and at least each 250 ms while asleep */
	uint64_t epoch;           /* of the tables, as read at the start of the burst; 0 while asleep or in Python */
	uint64_t last_burst_ns;   /* CLOCK_MONOTONIC of the last burst that was not empty */
	uint8_t pad[88];
};

/* Writer: the worker, except the ones that its Python writes through the same process. 64-bit words never tear. */
struct halo_worker_counters {
	uint64_t rx_frames; /* taken from the rx ring, handed ones included */
	uint64_t rx_octets;
	uint64_t rx_handed; /* of rx_frames: from other workers */
	uint64_t rx_bursts;
	uint64_t tx_frames; /* given to the driver for a port */
	uint64_t tx_octets;
	uint64_t tx_handed;  /* given to the driver for another worker */
	uint64_t originated; /* frames that this worker made, from spare buffers */
	uint64_t consumed;   /* frames that ended here on purpose: the Python stack took them */
	uint64_t held;       /* gauge: frames punted to Python and not yet given back */
	uint64_t punted;
	uint64_t echo_replies; /* answered by the fast path */
	uint64_t wakeups;      /* sleeps that ended */
	uint64_t doorbells;    /* rung by this worker for the driver */
	uint64_t polls;        /* turns of the poll loop */
	uint64_t logs_dropped;
	uint64_t forwarded;        /* of tx_frames: packets of others, sent on by the fast path */
	uint64_t copies;           /* frames that this worker made from received ones, in spare buffers */
	uint64_t icmp_suppressed;  /* errors that were not sent because too many were */
	uint64_t neighbor_touches; /* first uses of neighbors that Python was to hear of */
	uint64_t injected;         /* of originated: frames that the application put in at a stage */
	uint64_t datagrams_in;     /* given to sockets of this worker */
	uint64_t datagrams_out;    /* sent by sockets of this worker */
	uint64_t raw_frames;       /* given to the application as they came */
	uint64_t app_errors; /* exceptions of the application that cost no packet: of its timers, tasks, protocols */
	uint64_t sockets;    /* gauge: that this worker has */
	uint64_t neighbors;  /* gauge: that this worker knows, or looks for */
	uint64_t drops[HALO_DROP_LIMIT];
	uint8_t pad[40];
};

enum halo_hook_state {
	HALO_HOOK_FREE = 0, /* an unused place */
	HALO_HOOK_ACTIVE = 1,
	HALO_HOOK_QUARANTINED = 2, /* failed too often: its policy decides for it */
	HALO_HOOK_REMOVED = 3,     /* its counters stay until another hook needs the place */
};

/* Writer: the worker. */
struct halo_hook_counters {
	char name[HALO_HOOK_NAME_OCTETS];
	uint32_t state; /* enum halo_hook_state */
	uint32_t stage; /* enum halo_stage */
	uint64_t calls; /* bursts that it was shown */
	uint64_t packets;
	uint64_t dropped;
	uint64_t rewritten;
	uint64_t errors; /* exceptions, and verdicts that there are not */
	uint64_t busy_ns;
	uint8_t pad[24];
};

enum halo_timed_stage {
	HALO_TIMED_RECEIVE = 0,
	HALO_TIMED_PARSE = 1,
	HALO_TIMED_INPUT = 2,
	HALO_TIMED_ROUTE = 3,
	HALO_TIMED_FORWARD = 4,
	HALO_TIMED_FINISH = 5,
	HALO_TIMED_COUNT = 6,
};

/*
 * How the worker gets along. Writer: the worker. Bucket i of a distribution has what needs i bits: 0, 1, 2 to 3, 4 to 7 ...
 * Cycles are of the time stamp counter.
 */
struct halo_worker_load {
	uint64_t burst[HALO_BURST_BUCKETS]; /* bursts taken from the rx ring, by their frames */
	uint64_t lag[HALO_LAG_BUCKETS];     /* times that Python kept the worker, in units of 1,024 ns */
	uint64_t lag_ns;                    /* all of them together */
	uint64_t lag_max_ns;
	uint64_t rx_depth_max;              /* frames that waited on the rx ring when a burst was taken from it */
	uint64_t timed_bursts;              /* one of HALO_TIMED_EVERY */
	uint64_t timed_frames;              /* of these bursts */
	uint64_t cycles[HALO_TIMED_STAGES]; /* of these bursts, by enum halo_timed_stage */
	uint8_t pad[24];
};

/* Writer: the worker. */
struct halo_interface_counters {
	uint64_t rx_packets; /* IPv4 and ARP that came in by it */
	uint64_t rx_octets;  /* of frames */
	uint64_t tx_packets; /* that this worker sent out of it */
	uint64_t tx_octets;
};

/*
 * Writer: the slot's home lcore. What came from the worker is what went on, or has a name:
 * tx_descriptors == tx_sent + tx_passed + hand_sent + released + the drops whose name starts with tx_.
 */
struct halo_driver_counters {
	uint64_t rx_frames; /* put on the rx ring */
	uint64_t rx_octets;
	uint64_t rx_handed;      /* of rx_frames: from other workers */
	uint64_t tx_descriptors; /* taken from the tx ring, bad ones included */
	uint64_t tx_sent;        /* accepted by a port */
	uint64_t tx_octets;
	uint64_t tx_passed; /* given to another lcore, which counts what became of it */
	uint64_t hand_sent; /* put on the rx ring of another slot */
	uint64_t released;
	uint64_t spare_given;
	uint64_t reclaimed;   /* buffers taken back in a walk of the life cycle */
	uint64_t outstanding; /* gauge: buffers that the slot has now */
	uint64_t doorbells;   /* rung by the driver for the worker */
	uint64_t rings_broken;
	uint64_t resets; /* walks of the life cycle */
	uint64_t reserved;
	uint64_t drops[HALO_DROP_LIMIT];
};

struct halo_slot {
	struct halo_region_header header;
	struct halo_slot_geometry geometry; /* 64 octets */
	struct halo_slot_life life;
	struct halo_slot_doorbell doorbell;
	struct halo_slot_status status;
	struct halo_ring_index rx;
	struct halo_ring_index tx;
	struct halo_ring_index spare;
	struct halo_worker_counters worker;
	struct halo_driver_counters driver;
	struct halo_interface_counters interface[HALO_MAX_INTERFACES];
	struct halo_hook_counters hook[HALO_MAX_HOOKS];
	struct halo_worker_load load;
	/* then the descriptors of rx, tx and spare, where geometry says */
};

/* ---- owners --------------------------------------------------------------------------------------------------- */

/* Who has buffer i: 0 the driver (a port's queue or the free list), n + 1 slot n. Writer: the driver; outlives it. */
struct halo_owners {
	struct halo_region_header header;
	struct halo_pool_geometry pool; /* writer: the supervisor, before the region is shared */
	uint8_t pad[32];
	/* then uint8_t owner[buffer_count] */
};

/* ---- tables --------------------------------------------------------------------------------------------------- */

enum halo_interface_flag {
	HALO_INTERFACE_UP = 1,
	HALO_INTERFACE_FORWARD = 2, /* packets that come in here may go on elsewhere */
	HALO_INTERFACE_DIRECTED_BROADCAST = 4,
	HALO_INTERFACE_PROXY_ARP = 8,
	HALO_INTERFACE_REDIRECTS = 16,
};

/* A port, or one VLAN of it. Its place in the table is its number, which stays for as long as it is there. */
struct halo_interface { /* writer: the supervisor, in the block that is not active */
	uint8_t port;
	uint8_t home_slot; /* whose worker resolves the neighbors behind this port; HALO_NO_SLOT: nobody's, no queue of it feeds one */
	uint16_t vlan; /* 0: untagged */
	uint8_t mac[6];
	uint16_t mtu;   /* octets of an IP packet */
	uint32_t flags; /* enum halo_interface_flag; 0 in a place where no interface is */
	uint16_t first_address;
	uint16_t address_count; /* 0: unnumbered */
	uint8_t reserved[12];
};

struct halo_address {     /* writer: as above */
	uint32_t address; /* host order */
	uint8_t prefix_length;
	uint8_t reserved;
	uint16_t interface;
};

struct halo_interface_block {
	uint32_t count; /* places, empty ones between them included */
	uint32_t address_count;
	uint8_t pad[56];
	struct halo_interface entry[HALO_MAX_INTERFACES];
	struct halo_address address[HALO_MAX_ADDRESSES];
};

enum halo_socket_flag {
	HALO_SOCKET_SHARED = 1, /* others may have the same place: each worker takes what comes in by its own queues */
};

/* What a worker listens to. Host order; an address or a port of 0 stands for any. */
struct halo_socket { /* writer: the supervisor, in the block that is not active */
	uint32_t address;
	uint32_t peer;
	uint16_t port;
	uint16_t peer_port;
	uint8_t protocol;
	uint8_t slot;  /* whose worker has it */
	uint8_t flags; /* enum halo_socket_flag */
	uint8_t reserved;
};

struct halo_socket_block {
	uint32_t count;
	uint8_t pad[60];
	struct halo_socket entry[HALO_MAX_SOCKETS]; /* sorted by protocol, port, address, peer port, peer, slot */
};

struct halo_tables {
	struct halo_region_header header;
	uint64_t epoch;                /* writer: the supervisor; +1 at each switch, never 0 */
	uint32_t active;               /* writer: the supervisor; which block of interfaces readers use */
	uint32_t interface_generation; /* writer: the supervisor; +1 when another block became active */
	uint32_t active_sockets;       /* writer: the supervisor; which block of sockets readers use */
	uint32_t socket_generation;    /* writer: the supervisor; +1 when another block became active */
	uint8_t pad[40];
	struct halo_interface_block interfaces[2];
	struct halo_socket_block sockets[2];
};

/* ---- fib: where packets go -------------------------------------------------------------------------------------- */

enum halo_fib_constant {
	HALO_MAX_TARGETS = 65536,
	HALO_MAX_MEMBERS = 65536,  /* of all groups together */
	HALO_MAX_BUCKETS = 262144, /* of all groups together */
	HALO_FIB_ROOT = 65536,     /* entries of the first level: 16 bits of the address */
	HALO_FIB_NODE = 256,       /* entries of the levels below: 8 bits each */
	HALO_FIB_MAX_NODES = 262144,
	HALO_FIB_CHILD = 1073741824, /* 1 << 30, in an entry: its index is a node's. Else a target's: */
	HALO_FIB_DEPTH_SHIFT = 24,   /* with the length of the prefix that put it there in the six bits from here */
	HALO_FIB_INDEX_MASK = 16777215,
	HALO_MAX_ROUTES = 2097152,
};

enum halo_target_kind {
	HALO_TARGET_NONE = 0,      /* no route leads there; target 0 is of this kind, and always there */
	HALO_TARGET_LOCAL = 1,     /* an address of ours, on `interface` */
	HALO_TARGET_BROADCAST = 2, /* of a subnet on `interface` */
	HALO_TARGET_CONNECTED = 3, /* on the link of `interface` */
	HALO_TARGET_GATEWAY = 4,   /* behind the neighbor `address` on `interface` */
	HALO_TARGET_GROUP = 5, /* several: a flow's hash says in which of the buckets stands the target that is meant */
	HALO_TARGET_BLACKHOLE = 6,
	HALO_TARGET_UNREACHABLE = 7,
	HALO_TARGET_PROHIBIT = 8,
};

/*
 * What stands behind a route. Writer: the supervisor. It fills a target that no entry names, and changes nothing but `what`, one
 * word, as long as any reader may look at it.
 */
struct halo_target {
	uint32_t what;    /* kind, and the number of the interface << 16 */
	uint32_t address; /* gateway: the next hop, host order */
	uint32_t first;   /* group: its first bucket */
	uint16_t count;   /* group: how many buckets, a power of two */
	uint16_t flags;
};

/* For the supervisor alone: what a group was asked to be, so that the next supervisor knows. */
struct halo_member {
	uint32_t group; /* target; 0: a free place */
	uint32_t target;
	uint32_t weight;
	uint32_t order; /* within the group */
};

/*
 * A trie of 16, 8 and 8 bits whose leaves are targets. Writer of everything: the supervisor, one entry at a time, each with
 * one store; a node that no entry names any more is used again when every worker's epoch has passed. Memory behind the
 * nodes that were ever used is not there yet: it is reserved before the first of them is.
 */
struct halo_fib {
	struct halo_region_header header;
	uint32_t active;         /* which root readers start from */
	uint32_t hash_seed;      /* of the flows' hash, so that routers in a row do not all choose alike */
	uint32_t nodes_reserved; /* there is memory for so many; nobody may look behind them */
	uint8_t pad[52];
	struct halo_target target[HALO_MAX_TARGETS];
	uint32_t bucket[HALO_MAX_BUCKETS]; /* targets */
	struct halo_member member[HALO_MAX_MEMBERS];
	uint32_t root[2][HALO_FIB_ROOT];
	/* then uint32_t node[HALO_FIB_MAX_NODES][HALO_FIB_NODE] */
};

/* ---- routes: what the FIB is made of. Mapped by the supervisor alone, kept for its successor -------------------- */

struct halo_route {
	uint32_t prefix; /* host order */
	uint32_t target;
	uint8_t length;
	uint8_t used;   /* 0: a free place */
	uint8_t origin; /* enum halo_route_origin */
	uint8_t reserved;
	uint32_t reserved1;
};

enum halo_route_origin {
	HALO_ROUTE_CONNECTED = 1, /* follows from an interface's addresses */
	HALO_ROUTE_STATIC = 2,    /* configured, or asked for at run time */
};

struct halo_routes {
	struct halo_region_header header;
	uint64_t count; /* places that were ever used */
	uint8_t pad[56];
	/* then struct halo_route[HALO_MAX_ROUTES], with memory behind it as far as it is used */
};

/* ---- ports: what the driver tells of itself. Writer of everything behind the header: the driver ---------------- */

enum halo_port_state {
	HALO_PORT_ABSENT = 0,
	HALO_PORT_STARTED = 1,
	HALO_PORT_FAILED = 2, /* its device is gone, and looked for */
};

enum halo_port_mode {
	HALO_PORT_DIRECT = 0, /* receives into the pool */
	HALO_PORT_COPY = 1,   /* receives into a native mempool, one copy */
};

struct halo_xstat {
	char name[64];
	uint64_t value;
};

struct halo_port_status {
	uint32_t state; /* enum halo_port_state */
	uint32_t mode;  /* enum halo_port_mode */
	uint32_t link_up;
	uint32_t speed_mbps;
	uint32_t full_duplex;
	uint32_t mtu;
	uint32_t rx_queues; /* of the device */
	uint32_t tx_queues;
	uint8_t mac[6];
	uint8_t promiscuous;
	uint8_t has_rx_fd; /* can be slept on */
	uint32_t xstat_count;
	uint32_t spread_queues; /* that the driver makes of the device's one; 0: the device spreads, or need not */
	uint64_t updates;       /* +1 before and after each update: odd while one is under way */
	char device[64];
	char driver[32];
	uint64_t rx_frames; /* rte_eth_stats, as the PMD counts them */
	uint64_t tx_frames;
	uint64_t rx_octets;
	uint64_t tx_octets;
	uint64_t rx_missed;
	uint64_t rx_errors;
	uint64_t tx_errors;
	uint64_t rx_no_mbuf;
	uint64_t losses;       /* times that its device went away */
	uint64_t returns;      /* times that it was opened again after that */
	uint64_t link_changes; /* up or down, while started */
	struct halo_xstat xstat[HALO_MAX_XSTATS];
};

struct halo_lcore_status { /* writer: that lcore, progress and place on each turn */
	uint64_t progress;
	uint32_t place; /* enum halo_place */
	uint32_t running;
	uint64_t turns;            /* of the loop */
	uint64_t busy_turns;       /* that moved at least one frame */
	uint64_t sleeps;           /* waits on the doorbell and the ports' rx fds */
	uint64_t naps;             /* timed sleeps, where a port has no rx fd */
	uint64_t unclaimed_frames; /* frames of queues that feed no slot, released */
	uint64_t passed_in;        /* to send or to hand over, from other lcores: passed_sent + passed_dropped */
	uint64_t passed_sent;
	uint64_t passed_dropped;
	uint64_t spread_out; /* frames received here for slots of other lcores */
	uint64_t spread_in;  /* frames that other lcores received for slots of this one */
	uint8_t pad[32];
};

struct halo_ports {
	struct halo_region_header header;
	uint64_t driver_pid;
	uint64_t pool_free; /* gauge: buffers in the mempool and its caches */
	uint64_t withheld;  /* buffers that the driver found in workers' hands when it started */
	uint8_t pad[40];
	struct halo_lcore_status lcore[HALO_MAX_LCORES];
	struct halo_port_status port[HALO_MAX_PORTS];
};
