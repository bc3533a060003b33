/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The writer's side of the FIB, for the supervisor alone: routes by prefix, and the trie that follows from them. Functions return
 * 0 or a count, or a negative errno. Addresses are in host order; bits of a prefix behind its length must be 0.
 */

struct halo_fib_table;

struct halo_route_change {
	uint32_t prefix;
	uint32_t target; /* HALO_FIB_DELETE: ignored */
	uint8_t length;
	uint8_t origin; /* enum halo_route_origin */
	uint8_t kind;   /* enum halo_route_change_kind */
	uint8_t reserved;
	int32_t result;    /* out: 0, or a negative errno */
	uint32_t previous; /* out: the target that was there; 0: none */
};

enum halo_route_change_kind {
	HALO_FIB_ADD = 0,     /* -EEXIST when the prefix is there */
	HALO_FIB_REPLACE = 1, /* or added */
	HALO_FIB_DELETE = 2,  /* -ENOENT when it is not there */
};

/* Columns of `count` routes. */
struct halo_route_load {
	const uint32_t *prefix;
	const uint8_t *length;
	const uint32_t *which;
	const uint32_t *target;
	uint32_t count;
	uint32_t target_count;
};

struct halo_route_refusal {
	uint32_t position;
	int32_t error; /* a negative errno */
};

struct halo_fib_usage {
	uint32_t routes;
	uint32_t nodes;          /* in use */
	uint32_t nodes_waiting;  /* unlinked, and perhaps still looked at */
	uint32_t nodes_reserved; /* that there is memory for */
};

/*
 * Take over what stands in both regions, nothing or what a predecessor left, and go on. The descriptors stay the caller's; memory
 * is reserved through them as tables grow.
 */
int halo_fib_table_open(struct halo_fib *fib, int fib_fd, struct halo_routes *routes, int routes_fd,
			struct halo_fib_table **table);
void halo_fib_table_close(struct halo_fib_table *table);

/* Apply changes in order, each with its own result; a refused one changes nothing. Returns how many were refused. */
int64_t halo_fib_table_apply(struct halo_fib_table *table, struct halo_route_change *changes, uint32_t count);
/*
 * Add very many static routes, or put them in the place of those that are there: prefix and length of each, and which of the
 * targets it gets. Connected ones are refused with -EADDRINUSE. Returns how many were refused, the first `room` of them
 * in `refused`.
 */
uint32_t halo_fib_table_load(struct halo_fib_table *table, const struct halo_route_load *load,
			     struct halo_route_refusal *refused, uint32_t room);
/* Return the place of a route in the routes region, or -ENOENT. */
int64_t halo_fib_table_find(const struct halo_fib_table *table, uint32_t prefix, uint32_t length);
/* Return the place of the longest route that covers an address, or -ENOENT. */
int64_t halo_fib_table_covering(const struct halo_fib_table *table, uint32_t address);

/* Return the first place, from one on, with a route of that origin, 0 for any; or -ENOENT. */
int64_t halo_fib_table_next(const struct halo_fib_table *table, uint32_t place, uint32_t origin);

/* What was unlinked so far may be used again once every reader has passed this epoch. Returns how many nodes that are. */
uint32_t halo_fib_table_seal(struct halo_fib_table *table, uint64_t epoch);
/* Every reader has passed this epoch. */
void halo_fib_table_reclaim(struct halo_fib_table *table, uint64_t epoch);
/* How many routes name a target. */
uint32_t halo_fib_table_references(const struct halo_fib_table *table, uint32_t target);
void halo_fib_table_usage(const struct halo_fib_table *table, struct halo_fib_usage *usage);

/* For readers outside of the fast path: the target of a destination, and for a group the one of a flow with this hash. */
uint32_t halo_fib_lookup(const struct halo_fib *fib, uint32_t dst);
uint32_t halo_fib_lookup_flow(const struct halo_fib *fib, uint32_t dst, uint32_t hash);
