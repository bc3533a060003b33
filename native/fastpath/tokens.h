/* SPDX-License-Identifier: Apache-2.0 */
/* A token bucket, counted in nanoseconds: what a token costs grows back with the clock. */
#ifndef HALO_TOKENS_H
#define HALO_TOKENS_H

#include <stdbool.h>
#include <stdint.h>

struct halo_tokens {
	uint64_t seen_ns; /* up to when it has been filled */
	uint64_t credit_ns;
	uint64_t limit_ns;
	uint64_t cost_ns; /* of one token */
};

/* Start full. */
static inline void halo_tokens_set(struct halo_tokens *tokens, uint32_t per_s, uint32_t burst)
{
	tokens->seen_ns = 0;
	tokens->cost_ns = UINT64_C(1000000000) / per_s;
	tokens->limit_ns = tokens->cost_ns * burst;
	tokens->credit_ns = tokens->limit_ns;
}

static inline bool halo_tokens_take(struct halo_tokens *tokens, uint64_t now_ns)
{
	uint64_t earned = now_ns - tokens->seen_ns;
	uint64_t room = tokens->limit_ns - tokens->credit_ns;

	tokens->seen_ns = now_ns;
	tokens->credit_ns += earned < room ? earned : room;
	if (tokens->credit_ns < tokens->cost_ns)
		return false;
	tokens->credit_ns -= tokens->cost_ns;
	return true;
}

#endif
