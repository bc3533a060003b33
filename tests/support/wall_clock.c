/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Preloaded: a wall clock that is ahead of the kernel's by as many seconds as the file HALO_MP_TEST_WALL_CLOCK says, an
 * int64_t that a test may change at any time. Every other clock is the kernel's.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const int64_t *ahead_s;

__attribute__((constructor)) static void map_offset(void)
{
	const char *path = getenv("HALO_MP_TEST_WALL_CLOCK");
	int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	void *found;

	if (fd < 0)
		return;
	found = mmap(NULL, sizeof(*ahead_s), PROT_READ, MAP_SHARED, fd, 0);
	close(fd);
	if (found != MAP_FAILED)
		ahead_s = found;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
	int result = (int)syscall(SYS_clock_gettime, clock, now);

	if (result == 0 && ahead_s && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
		now->tv_sec += __atomic_load_n(ahead_s, __ATOMIC_RELAXED);
	return result;
}

int gettimeofday(struct timeval *now, void *zone)
{
	struct timespec found;

	(void)zone;
	if (clock_gettime(CLOCK_REALTIME, &found) != 0)
		return -1;
	now->tv_sec = found.tv_sec;
	now->tv_usec = found.tv_nsec / 1000;
	return 0;
}

time_t time(time_t *at)
{
	struct timespec found;

	if (clock_gettime(CLOCK_REALTIME, &found) != 0)
		return -1;
	if (at)
		*at = found.tv_sec;
	return found.tv_sec;
}
