/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Raw frames: what comes in by a port goes to the application as it came, before the stack; and frames that leave in bursts, made
 * from templates. Called by the worker's thread only. Functions return 0 or a count, or a negative errno.
 */

enum halo_raw_limit {
	HALO_RAW_QUEUE = 4096, /* frames of a port that may wait for the application */
	HALO_MAX_BLASTS = 16,  /* of a worker */
	HALO_MAX_TEMPLATES = 1024,
	HALO_MAX_BLAST_FIELDS = 8,
};

/*
 * From now on frames that come in by this port, through a queue of this slot, wait for the application: up to `limit` of them, a
 * power of two, HALO_RAW_QUEUE at most; more are dropped as raw_queue_full. After ingress hooks; frames that were handed over or
 * put in go to the stack as ever. `records` has room for `limit` of them, and is the caller's: who has looked at one may go on doing
 * so for as long as he keeps it. -EBUSY: they are claimed already.
 */
int halo_worker_raw_claim(struct halo_worker *worker, uint32_t port, uint32_t limit, struct halo_packet *records);
/* No more of them. What waits or is taken is dropped. */
void halo_worker_raw_release(struct halo_worker *worker, uint32_t port);
/* Frames that wait, those that are taken not among them. */
uint32_t halo_worker_raw_waiting(const struct halo_worker *worker, uint32_t port);
/* The poll is to come back, once, with HALO_POLL_RAW when frames of this port wait: `count` of them, or what there is. */
int halo_worker_raw_want(struct halo_worker *worker, uint32_t port, uint32_t count);
/*
 * Take up to `limit` of those that wait; the ones taken before are settled. They lie one behind the other, have verdict
 * HALO_VERDICT_RAW, and stay where they are until they are settled.
 */
int halo_worker_raw_take(struct halo_worker *worker, uint32_t port, uint32_t limit, struct halo_packet **packets);
/*
 * Give frames that were taken a verdict, all or those whose octet in `mask` is not 0: HALO_VERDICT_TRANSMIT, DROP or CONSUME.
 * Returns how many got it.
 */
int halo_worker_raw_decide(struct halo_worker *worker, uint32_t port, uint32_t verdict, uint32_t tx_port,
			   const uint8_t *mask);
/* Other octets for frame i, as many as its buffer has room for. -EMSGSIZE: they are too many, or too few for a frame. */
int halo_worker_raw_replace(struct halo_worker *worker, uint32_t port, uint32_t i, const uint8_t *octets,
			    uint32_t length);
/*
 * End those that were taken, each by its verdict. Undecided ones are dropped (app_drop), and so is, as hook_error, what has left
 * its buffer or got a verdict that there is not. Returns how many there were.
 */
int halo_worker_raw_settle(struct halo_worker *worker, uint32_t port);

/* Octets of a template that differ from frame to frame, as one number, most significant octet first. */
struct halo_blast_field {
	uint32_t offset; /* from the start of the frame */
	uint32_t octets; /* 1 to 8 */
	uint64_t first;
	uint64_t step;
	uint64_t count;  /* values that it takes: first, first + step ...; 0: no end */
	uint32_t random; /* != 0: in no order; count is not 0 then */
	uint32_t reserved;
};

/*
 * Frames that are copies of templates in turn. IPv4, UDP, TCP and ICMP checksums that are right in a template stay right; those
 * that are wrong, and UDP's 0, stay as they are.
 */
struct halo_blast_setup {
	uint32_t port;
	uint32_t template_count;
	const uint8_t *octets; /* of all templates, one behind the other */
	const uint32_t *lengths;
	const struct halo_blast_field *fields;
	uint32_t field_count;
	uint32_t reserved;
};

/* How fast. Both limits hold where both are given; 0: none. */
struct halo_blast_pace {
	uint64_t frames_per_s;
	uint64_t bits_per_s;  /* of frames, without preamble, FCS and gap */
	uint64_t catch_up_ns; /* time without the processor that is made up for by sending faster than that */
	uint64_t count;       /* frames, then it ends; 0: it does not */
};

struct halo_blast_counters {
	uint64_t frames;
	uint64_t octets;
	uint64_t starved; /* times that it was its turn and there was no empty buffer */
	uint64_t running;
};

/* Returns its number. -EINVAL: a template or a field that can not be; -EMSGSIZE: longer than a buffer; -ENOSPC: there are HALO_MAX_BLASTS. */
int halo_worker_blast_add(struct halo_worker *worker, const struct halo_blast_setup *setup);
void halo_worker_blast_remove(struct halo_worker *worker, uint32_t number);
/* Send so many now, at no pace. Returns how many there were buffers for. */
int halo_worker_blast_send(struct halo_worker *worker, uint32_t number, uint32_t count);
/* Send at that pace whenever the worker polls; the poll comes back with HALO_POLL_BLAST when `count` have gone. */
int halo_worker_blast_start(struct halo_worker *worker, uint32_t number, const struct halo_blast_pace *pace);
void halo_worker_blast_stop(struct halo_worker *worker, uint32_t number);
int halo_worker_blast_read(const struct halo_worker *worker, uint32_t number, struct halo_blast_counters *counters);
