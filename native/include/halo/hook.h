/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HALO_HOOK("area.step"): a place between two instructions where a death, a stop or a pause could hurt. Nothing at all in an
 * ordinary build. With -DHALO_TEST_HOOKS, as tests/support/hooks.py builds it, each passage looks at the order in the file that
 * HALO_MP_TEST_HOOKS names: the passage that makes `left` 0 does what the order says.
 */
#ifndef HALO_HOOK_H
#define HALO_HOOK_H

#ifndef HALO_TEST_HOOKS

#define HALO_HOOK(name) ((void)0)

#else

#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define HALO_HOOK(name) halo_hook(name)

enum halo_hook_action {
	HALO_HOOK_KILL = 1,
	HALO_HOOK_STOP = 2,
	HALO_HOOK_SLEEP = 3, /* argument: milliseconds */
};

/* The file. Writer: the test, which sets `armed` last; then whoever passes, `left` and `hits`. */
struct halo_hook_order {
	uint32_t armed;
	uint32_t action;
	uint32_t argument;
	int32_t left; /* passages until it happens */
	uint32_t pid; /* whose; 0: anybody's */
	uint32_t hits;
	char name[40];
};

/* Weak: each module has them once, whichever of its files includes this. */
__attribute__((weak)) struct halo_hook_order *halo_hook_order;

/* Before main(): a worker that has given up its privileges can open nothing. */
__attribute__((weak, constructor)) void halo_hook_attach(void)
{
	const char *path = getenv("HALO_MP_TEST_HOOKS");
	int fd = path && !halo_hook_order ? open(path, O_RDWR | O_CLOEXEC) : -1;
	void *order = fd < 0 ? MAP_FAILED
			     : mmap(NULL, sizeof(struct halo_hook_order), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (fd >= 0)
		close(fd);
	if (order != MAP_FAILED)
		halo_hook_order = order;
}

__attribute__((weak)) void halo_hook_act(struct halo_hook_order *order)
{
	struct timespec pause = {.tv_sec = order->argument / 1000, .tv_nsec = order->argument % 1000 * 1000000L};
	uint32_t action = order->action;

	__atomic_store_n(&order->armed, 0, __ATOMIC_RELAXED);
	__atomic_add_fetch(&order->hits, 1, __ATOMIC_RELEASE);
	if (action == HALO_HOOK_SLEEP)
		nanosleep(&pause, NULL);
	else
		kill(getpid(), action == HALO_HOOK_STOP ? SIGSTOP : SIGKILL);
}

__attribute__((weak)) void halo_hook(const char *name)
{
	struct halo_hook_order *order = halo_hook_order;

	if (!order || !__atomic_load_n(&order->armed, __ATOMIC_ACQUIRE) || strcmp(order->name, name) != 0)
		return;
	if (order->pid && order->pid != (uint32_t)getpid())
		return;
	if (__atomic_sub_fetch(&order->left, 1, __ATOMIC_RELAXED) == 0)
		halo_hook_act(order);
}

#endif
#endif
