/* SPDX-License-Identifier: Apache-2.0 */
/* Bursts from templates. */
#ifndef HALO_BLAST_H
#define HALO_BLAST_H

#include <stdbool.h>

#include <halo/fastpath.h>

/* A checksum of a template: where it is, and the sum of what it covers without itself and the fields that vary. */
struct halo_blast_checksum {
	uint16_t at; /* from the start of the frame; 0: there is none to mend */
	bool udp;    /* 0 is written as 0xffff */
	uint32_t sum;
};

struct halo_blast_template {
	uint8_t *octets; /* padded to whole lines */
	uint16_t length;
	uint16_t vlan;
	struct halo_blast_checksum ip;
	struct halo_blast_checksum l4;
	uint8_t in_ip[HALO_MAX_BLAST_FIELDS]; /* whether the checksum covers that field */
	uint8_t in_l4[HALO_MAX_BLAST_FIELDS];
};

/* How a field goes on from frame to frame. */
struct halo_blast_series {
	struct halo_blast_field field;
	uint64_t index;
	uint64_t value;
	uint64_t random; /* state */
	uint32_t shift;  /* to line it up with the 16-bit words of a checksum */
};

struct halo_blast {
	uint8_t port;
	bool running;
	bool ended; /* has sent its count, and Python has not heard of it */
	uint32_t template_count;
	uint32_t next_template;
	uint32_t longest;
	bool mixed; /* not all frames leave on one VLAN */
	uint32_t field_count;
	uint8_t *memory; /* of all templates' octets */
	struct halo_blast_template *templates;
	struct halo_blast_series series[HALO_MAX_BLAST_FIELDS];
	/* pace: what may be sent, in frames and bits times 10^9, so that a nanosecond of any rate is a whole number */
	struct halo_blast_pace pace;
	uint64_t filled_ns;
	unsigned __int128 frame_tokens;
	unsigned __int128 bit_tokens;
	uint64_t left; /* of pace.count */
	struct halo_blast_counters counters;
};

struct halo_blasts {
	struct halo_blast *blast[HALO_MAX_BLASTS];
	uint32_t running;
	bool ended; /* of one, Python is to hear */
};

struct halo_worker;

/* One burst of each that runs and may. Returns how many frames went. */
uint32_t halo_blast_serve(struct halo_worker *worker);
/* How long there is nothing to send. */
int64_t halo_blast_wait_ns(const struct halo_worker *worker);
void halo_blast_close(struct halo_worker *worker);

#endif
