/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>

#include "worker.h"

#pragma GCC diagnostic ignored "-Wunused-parameter"
int halo_worker_add_hook(struct halo_worker *worker, const struct halo_hook_setup *setup)
{
	return -ENOSYS;
}
int halo_worker_remove_hook(struct halo_worker *worker, uint32_t number)
{
	return -ENOSYS;
}
int halo_worker_set_hook_function(struct halo_worker *worker, uint32_t number, halo_hook_function function)
{
	return -ENOSYS;
}
int halo_worker_set_hook_interface(struct halo_worker *worker, uint32_t number, uint32_t interface)
{
	return -ENOSYS;
}
int halo_worker_quarantine_hook(struct halo_worker *worker, uint32_t number, uint32_t policy)
{
	return -ENOSYS;
}
int halo_worker_count_hook_errors(struct halo_worker *worker, uint32_t number, uint32_t errors)
{
	return -ENOSYS;
}
int halo_worker_parked(const struct halo_worker *worker)
{
	return 0;
}
int halo_worker_inject(struct halo_worker *worker, uint32_t stage, uint32_t port, const uint8_t *frame, uint32_t length)
{
	return -ENOSYS;
}
void halo_packets_parse(const uint8_t *pool, const struct halo_pool_geometry *geometry, struct halo_packet *packets,
			uint32_t count, uint64_t timestamp_ns)
{
}
void halo_packets_remember(const uint8_t *pool, const struct halo_packet *packets, uint32_t count,
			   struct halo_shadow *shadows)
{
}
void halo_packets_settle(uint8_t *pool, const struct halo_pool_geometry *geometry, struct halo_packet *packets,
			 uint32_t count, const struct halo_shadow *shadows, uint32_t on_error,
			 struct halo_settled *settled)
{
}
void halo_packets_update_checksums(uint8_t *pool, const struct halo_pool_geometry *geometry,
				   struct halo_packet *packets, uint32_t count)
{
}
int64_t halo_bench_hook_nothing(struct halo_packet *packets, int64_t count, uint8_t *pool)
{
	return 0;
}
int64_t halo_bench_hook_filter(struct halo_packet *packets, int64_t count, uint8_t *pool)
{
	return 0;
}
