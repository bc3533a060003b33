/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two sessions in one thread, one writes, the other reads, by the same steps for ours and for the reference: write until
 * the window is full, update the writer and give each datagram to the reader, read all, update the reader and give its
 * acknowledgements back. The functions come from the caller, so this file knows of no library.
 */
#define _GNU_SOURCE
#include <stdint.h>
#include <string.h>
#include <time.h>

#include <halo/kcp.h>

/* The reference's functions; its sessions are opaque here. */
struct reference {
	int (*send)(void *kcp, const char *octets, int length);
	int (*recv)(void *kcp, char *octets, int length);
	int (*input)(void *kcp, const char *octets, long length);
	void (*update)(void *kcp, uint32_t now_ms);
	int (*waiting)(const void *kcp);
};

struct ours {
	int64_t (*send)(struct halo_kcp *kcp, const uint8_t *octets, uint64_t length);
	int64_t (*receive)(struct halo_kcp *kcp, uint8_t *octets, uint64_t room);
	int (*input)(struct halo_kcp *kcp, const uint8_t *octets, uint64_t length, uint32_t now_ms);
	uint32_t (*poll)(struct halo_kcp *kcp, uint32_t now_ms, struct halo_kcp_output *output);
	uint32_t (*waiting)(const struct halo_kcp *kcp);
	void (*clear)(struct halo_kcp_output *output);
};

struct run {
	uint64_t messages;
	uint32_t length;
	uint32_t window;
	uint32_t interval_ms;
	uint32_t loss; /* one datagram in so many from the writer is lost; 0: none */
	uint32_t seed;
	uint32_t bad; /* messages that were not what was written */
	uint64_t elapsed_ns;
};

enum { MOST_OCTETS = 65536 };

/* Where a reference's datagrams go. */
struct way {
	const struct reference *functions;
	struct run *run;
	void *to;
	int lossy;
};

/* Time on the processor: what else runs on it does not count. */
static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static int is_lost(struct run *run)
{
	run->seed = run->seed * 1664525 + 1013904223;
	return run->loss && (run->seed >> 8) % run->loss == 0;
}

int bench_reference_output(const char *octets, int length, void *kcp, void *user)
{
	const struct way *way = user;

	(void)kcp;
	if (!way->lossy || !is_lost(way->run))
		way->functions->input(way->to, octets, length);
	return 0;
}

static void check_message(struct run *run, const uint8_t *octets, int64_t length, uint64_t number)
{
	run->bad += length != run->length || memcmp(octets, &number, 8) != 0;
}

void bench_reference(const struct reference *functions, void *writer, void *reader, struct run *run)
{
	static char message[MOST_OCTETS], octets[MOST_OCTETS];
	uint64_t written = 0, got = 0, start = now_ns();
	uint32_t now_ms = 0;
	int length;

	while (got < run->messages) {
		while (written < run->messages && (uint32_t)functions->waiting(writer) < run->window) {
			memcpy(message, &written, 8);
			functions->send(writer, message, (int)run->length);
			written++;
		}
		now_ms += run->interval_ms;
		functions->update(writer, now_ms);
		while ((length = functions->recv(reader, octets, MOST_OCTETS)) >= 0)
			check_message(run, (uint8_t *)octets, length, got++);
		functions->update(reader, now_ms);
	}
	run->elapsed_ns = now_ns() - start;
}

static void give(const struct ours *functions, struct halo_kcp *to, struct halo_kcp_output *output, uint32_t now_ms,
		 struct run *run, int lossy)
{
	uint32_t i;

	for (i = 0; i < output->count; i++)
		if (!lossy || !is_lost(run))
			functions->input(to, output->datagram[i].octets, output->datagram[i].length, now_ms);
	functions->clear(output);
}

void bench_ours(const struct ours *functions, struct halo_kcp *writer, struct halo_kcp *reader,
		struct halo_kcp_output *output, struct run *run)
{
	static uint8_t message[MOST_OCTETS], octets[MOST_OCTETS];
	uint64_t written = 0, got = 0, start = now_ns();
	uint32_t now_ms = 0;
	int64_t length;

	while (got < run->messages) {
		while (written < run->messages && functions->waiting(writer) < run->window) {
			memcpy(message, &written, 8);
			functions->send(writer, message, run->length);
			written++;
		}
		now_ms += run->interval_ms;
		functions->poll(writer, now_ms, output);
		give(functions, reader, output, now_ms, run, 1);
		while ((length = functions->receive(reader, octets, MOST_OCTETS)) >= 0)
			check_message(run, octets, length, got++);
		functions->poll(reader, now_ms, output);
		give(functions, writer, output, now_ms, run, 0);
	}
	run->elapsed_ns = now_ns() - start;
}
