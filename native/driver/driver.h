/* SPDX-License-Identifier: Apache-2.0 */
/* The driver's private state. What is shared with other processes is in halo/layout.h only. */
#ifndef HALO_DRIVER_PRIVATE_H
#define HALO_DRIVER_PRIVATE_H

#include <stdbool.h>
#include <stdint.h>

#include <rte_ethdev.h>
#include <rte_mbuf.h>
#include <rte_mbuf_dyn.h>
#include <rte_ring.h>

#include <halo/driver.h>
#include <halo/hook.h>
#include <halo/ring.h>

#define HALO_NO_PORT 0xffff
#define HALO_INBOX_SIZE 4096
#define HALO_OWNER_DRIVER 0

struct halo_lcore;

enum halo_link {
	HALO_LINK_OF_PMD = 0,
	HALO_LINK_DOWN,
	HALO_LINK_UP,
};

/*
 * A port, as all lcores see it. Written by the main thread while no lcore runs or `started` is false and every lcore has
 * left it (device.c); constant otherwise. `started` is set last and cleared first.
 */
struct halo_port {
	uint16_t device;    /* DPDK's port id */
	uint16_t rx_queues; /* of the device */
	uint16_t tx_queues;
	uint16_t queues;    /* that feed slots: the device's, or those that we make of its one */
	bool software;      /* we make them (spread.c) */
	uint32_t max_frame; /* octets, from the MTU: header and two VLAN tags added */
	bool present;
	bool open;    /* DPDK's device is ours, to be closed */
	bool started; /* frames flow; atomic */
	bool copy;    /* receives into a pool of its own */
	bool rx_fd;   /* every rx queue can be slept on */
	struct rte_mempool *copy_pool;
	struct halo_slot_home *spread[HALO_MAX_QUEUES]; /* by queue; set while no lcore polls the port; NULL: nobody */
	/* the main thread's alone, but for `removed` */
	char name[RTE_ETH_NAME_MAX_LEN];
	uint32_t removed;          /* the PMD says that the device was pulled; written by EAL's interrupt thread */
	enum halo_link link;       /* who knows the link state, and what it is */
	struct rte_eth_stats base; /* what the device had counted in its earlier lives */
};

/* A slot, as its home lcore sees it: the rings' private halves, and the geometry that was read once. */
struct halo_slot_home {
	struct halo_slot *shared;
	struct halo_slot_geometry geometry; /* checked, private: the worker can write to the shared one */
	struct halo_driver_counters *count;
	uint32_t number;
	uint8_t tag; /* in the owners region: number + 1 */
	bool enabled;
	uint32_t state;      /* enum halo_slot_state, and the generation: what we have last written to `life` */
	uint32_t generation; /* of the rings */
	int doorbell_fd;
	uint32_t bound;
	uint32_t outstanding;
	uint16_t tx_queue
		[HALO_MAX_PORTS]; /* of each port, for this slot's frames; HALO_NO_PORT: pass to another lcore */
	struct halo_lcore *home;
	struct halo_producer rx;
	struct halo_consumer tx;
	struct halo_producer spare;
	/* counted by other lcores, atomically, until the home lcore has added them to `count` */
	uint32_t missed[HALO_DROP_LIMIT];
	uint32_t missed_any;
};

struct halo_feed { /* an rx queue that this lcore polls */
	struct halo_port *port;
	uint16_t queue;
	uint8_t port_number;
	struct halo_slot_home
		*slot; /* NULL: drained, counted, released. Not looked at where the port is spread by us */
};

struct halo_tx_buffer {
	uint16_t count;
	struct rte_mbuf *frame[HALO_BURST];
};

enum halo_note_kind {
	HALO_NOTE_TRANSMIT,
	HALO_NOTE_HAND,
	HALO_NOTE_SPREAD,
};

/*
 * What we keep with each mbuf of the pool; a dynamic field. `buffer` never changes. `owner` mirrors the owners region: checking
 * it costs no cache line of its own. The rest travels with a frame from lcore to lcore.
 */
struct halo_note {
	uint32_t buffer;
	uint8_t owner;
	uint8_t kind;   /* enum halo_note_kind */
	uint8_t target; /* port or slot */
	uint8_t flags;  /* of the descriptor */
};

typedef int64_t (*halo_command_fn)(struct halo_lcore *lcore, void *argument);

struct halo_lcore {
	struct halo_driver *driver;
	struct halo_lcore_status *status;
	uint32_t index;
	unsigned int id; /* DPDK's */
	int doorbell_fd;
	int epoll_fd;
	bool fds_complete; /* every feed has an rx fd: we can block */
	uint32_t feed_count;
	uint32_t slot_count;
	struct halo_feed feed[HALO_MAX_PORTS * 4];
	struct halo_slot_home *slot[HALO_MAX_SLOTS];
	uint16_t tx_queue[HALO_MAX_PORTS]; /* HALO_NO_PORT: pass to tx_lcore */
	struct halo_lcore *tx_lcore[HALO_MAX_PORTS];
	uint64_t tx_touched; /* bit i: tx[i] is not empty */
	struct halo_tx_buffer tx[HALO_MAX_PORTS];
	struct rte_ring *inbox;
	/* command of the main thread: `command` is set last, taken by the lcore, and `answered` set when `result` is there */
	halo_command_fn command;
	void *argument;
	int64_t result;
	uint32_t answered;
	uint32_t sleeping;
	uint32_t nap_ns;
};

/* The pool's geometry as the data path needs it: small, so that it fits in registers for a burst. */
struct halo_locator {
	uint32_t buffers_per_chunk;
	uint32_t buffer_count;
	uint32_t stride_octets;
	uint32_t reciprocal; /* of the stride in lines */
};

struct halo_driver {
	uint8_t *pool;
	struct halo_pool_geometry geometry;
	uint64_t page_octets;
	struct halo_locator locator;
	uint8_t *owner;
	struct halo_ports *ports;
	struct rte_mempool *mempool;
	uint8_t *headers;       /* the mbufs, one after the other */
	uint32_t header_octets; /* from one to the next */
	uint32_t header_offset; /* of the first: mempool's own header */
	int note_offset;
	uint32_t idle_policy;
	uint64_t spin_ns;
	bool rx_checksum;
	bool tx_checksum;
	bool tx_only;
	bool running;
	bool registered;
	uint32_t slot_count;
	uint32_t lcore_count;
	struct halo_slot_home *by_number[HALO_MAX_SLOTS];
	struct halo_slot_home slot[HALO_MAX_SLOTS];
	struct halo_lcore *lcore[HALO_MAX_LCORES];
	struct halo_port port[HALO_MAX_PORTS];
	uint32_t quit;
};

/* Acquire: who sees it started sees the device that was opened before. Pairs with set_started in device.c. */
static inline bool halo_port_is_started(const struct halo_port *port)
{
	return __atomic_load_n(&port->started, __ATOMIC_ACQUIRE);
}

static inline struct halo_note *halo_note_of(const struct halo_driver *driver, struct rte_mbuf *frame)
{
	return RTE_MBUF_DYNFIELD(frame, driver->note_offset, struct halo_note *);
}

/*
 * Which buffer holds pool offset `offset`, and how far into it: false when there is none. Works on a private copy of the
 * descriptor; see struct halo_pool_geometry. The reciprocal is exact for every line of a chunk (pool.c checks that).
 */
static inline bool halo_locate(const struct halo_locator *locator, uint32_t offset, uint32_t *buffer, uint32_t *within)
{
	uint32_t chunk = offset / HALO_CHUNK_OCTETS;
	uint32_t rest = offset % HALO_CHUNK_OCTETS;
	uint32_t number = (uint32_t)(((uint64_t)(rest / HALO_LINE) * locator->reciprocal) >> 32);

	*buffer = chunk * locator->buffers_per_chunk + number;
	*within = rest - number * locator->stride_octets;
	return number < locator->buffers_per_chunk && *buffer < locator->buffer_count;
}

/* The mbuf of a buffer: headers lie in buffer order, evenly (pool.c checks that), so it is arithmetic and no table. */
static inline struct rte_mbuf *halo_mbuf_of(const struct halo_driver *driver, uint32_t buffer)
{
	return (struct rte_mbuf *)(void *)(driver->headers + driver->header_offset +
					   (uint64_t)buffer * driver->header_octets);
}

/* Give a buffer to a slot, or (HALO_OWNER_DRIVER) take it back, in private memory and for whoever comes after us. */
static inline void halo_set_owner(const struct halo_driver *driver, struct halo_note *note, uint8_t owner)
{
	note->owner = owner;
	__atomic_store_n(&driver->owner[note->buffer], owner, __ATOMIC_RELAXED);
}

/* Whether the words of a slot's life are those that we wrote. The worker can write there too. */
static inline bool halo_slot_life_is_ours(const struct halo_slot_home *slot)
{
	return __atomic_load_n(&slot->shared->life.state, __ATOMIC_RELAXED) == slot->state &&
	       __atomic_load_n(&slot->shared->life.generation, __ATOMIC_RELAXED) == slot->generation;
}

/* pool.c */
int halo_pool_measure(struct halo_driver *driver, struct halo_driver_setup *setup);
int halo_pool_create(struct halo_driver *driver, struct halo_driver_setup *setup);
void halo_pool_destroy(struct halo_driver *driver);

/* slot.c */
int halo_slot_home_set_up(struct halo_driver *driver, struct halo_slot_home *home, struct halo_slot *shared,
			  uint64_t shared_octets, uint32_t number, int doorbell_fd);
int64_t halo_slot_enable(struct halo_lcore *lcore, void *argument);
int64_t halo_slot_reset(struct halo_lcore *lcore, void *argument);
void halo_slot_broken(struct halo_slot_home *slot);
void halo_slot_life_scribbled(struct halo_slot_home *slot);
void halo_slot_wake(struct halo_slot_home *slot);
void halo_slot_refill(struct halo_lcore *lcore, struct halo_slot_home *slot);
uint32_t halo_slot_room(struct halo_slot_home *slot, uint32_t want, enum halo_drop *why_less);

/* rx.c, tx.c: one burst each; they return how many frames they moved */
uint32_t halo_rx_serve(struct halo_lcore *lcore, struct halo_feed *feed);
void halo_rx_drop(struct halo_lcore *lcore, struct halo_slot_home *slot, struct rte_mbuf **frame, uint32_t count,
		  enum halo_drop reason);
uint32_t halo_rx_copy(struct halo_lcore *lcore, struct halo_slot_home *slot, struct rte_mbuf **frame, uint32_t count);
void halo_rx_give(struct halo_lcore *lcore, struct halo_slot_home *slot, uint8_t port, struct rte_mbuf **frame,
		  uint32_t count);
uint32_t halo_tx_serve(struct halo_lcore *lcore, struct halo_slot_home *slot);
uint32_t halo_inbox_serve(struct halo_lcore *lcore);
void halo_deliver_handed(struct halo_lcore *lcore, struct halo_slot_home *slot, struct rte_mbuf *frame, uint8_t flags);

/* spread.c */
void halo_spread_serve(struct halo_lcore *lcore, const struct halo_feed *feed, struct rte_mbuf **frame, uint32_t count);
uint32_t halo_spread_take(struct halo_lcore *lcore, struct rte_mbuf **frame, uint32_t count);
void halo_spread_count_missed(struct halo_slot_home *slot);

/* lcore.c */
int halo_lcore_main(void *argument);
int64_t halo_lcore_call(struct halo_lcore *lcore, halo_command_fn command, void *argument);
void halo_lcore_wake(struct halo_lcore *lcore);

/* sleep.c */
void halo_lcore_sleep(struct halo_lcore *lcore);
int halo_lcore_watch(struct halo_lcore *lcore);

/* port.c */
int halo_port_open(struct halo_driver *driver, struct halo_port *port, struct halo_port_setup *setup);
void halo_port_assign_tx(struct halo_lcore *lcore, uint32_t number);
void halo_port_update(struct halo_driver *driver, uint32_t number);
void halo_choose_tx_queues(struct halo_lcore *lcore);

/* queues.c */
int halo_queues_choose(struct halo_port *port, const struct rte_eth_dev_info *info, struct halo_port_setup *setup);
bool halo_queues_fall_back(struct halo_port *port, const struct halo_port_setup *setup);
void halo_queues_rss(const struct halo_port *port, const struct rte_eth_dev_info *info, struct rte_eth_conf *conf);

/* device.c */
int halo_port_watch(struct halo_port *port);

#endif
