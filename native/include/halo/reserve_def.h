/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory kept back for a process's last words. When an allocation of Python's fails, the reserve is given back to the
 * system, the allocation is tried again, and the process is told, in its main thread and between two bytecodes: it has so
 * many octets left to say what happened and to end. Without that, whatever asked first meets the failure, and not all of
 * CPython and of its extensions bears it: some crash.
 */

enum halo_reserve_limit {
	HALO_RESERVE_SHARE =
		4, /* a request for more than this part of the reserve fails as ever: nobody is at an end */
};

/*
 * Keep `octets` of address space and of commit charge, untouched, and look after Python's allocators from now on. Once a
 * process, before it has threads of its own. Returns 0, -EALREADY, or the negative errno of mmap(2).
 */
int halo_reserve_hold(uint64_t octets);
