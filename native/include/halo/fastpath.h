/* SPDX-License-Identifier: Apache-2.0 */
/* C side of the fast path's declarations. */
#ifndef HALO_FASTPATH_H
#define HALO_FASTPATH_H

#include <halo/layout.h>
#include <halo/packet_def.h>
#include <halo/fastpath_def.h>
#include <halo/raw_def.h>
#include <halo/chain_def.h>
#include <halo/view_def.h>
#include <halo/socket_def.h>
#include <halo/capture_def.h>

static_assert(sizeof(struct halo_packet) == 128, "a packet is two lines");
HALO_AT(halo_packet, src, 64);
static_assert(sizeof(struct halo_shadow) == HALO_SHADOW_OCTETS, "a shadow is two lines");

#endif
