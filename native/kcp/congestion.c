/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Congestion control. One struct is one way to do it; what it has to remember stands in the session.
 *
 * The classic one is the reference's: slow start below a threshold, then about one segment more per window; half of what is
 * in flight after a fast resend, one segment after a time-out.
 */
#include "session.h"

enum { THRESHOLD_MIN = 2 };

static uint32_t no_window(const struct halo_kcp *kcp)
{
	(void)kcp;
	return UINT32_MAX;
}

static void nothing(struct halo_kcp *kcp)
{
	(void)kcp;
}

static void nothing_lost(struct halo_kcp *kcp, uint32_t window)
{
	(void)kcp;
	(void)window;
}

static uint32_t classic_window(const struct halo_kcp *kcp)
{
	return kcp->window;
}

/* Beyond the threshold the window grows by octets, and is as many segments as these are. */
static void classic_avoid(struct halo_kcp *kcp)
{
	uint32_t mss = kcp->mss;

	kcp->window_octets = most(kcp->window_octets, mss);
	kcp->window_octets += mss * mss / kcp->window_octets + mss / 16;
	if ((kcp->window + 1) * mss <= kcp->window_octets)
		kcp->window = (kcp->window_octets + mss - 1) / mss;
}

static void classic_acknowledged(struct halo_kcp *kcp)
{
	if (kcp->window >= kcp->remote_window)
		return;
	if (kcp->window < kcp->threshold) {
		kcp->window++;
		kcp->window_octets += kcp->mss;
	} else {
		classic_avoid(kcp);
	}
	if (kcp->window > kcp->remote_window) {
		kcp->window = kcp->remote_window;
		kcp->window_octets = kcp->remote_window * kcp->mss;
	}
}

static void classic_resent(struct halo_kcp *kcp)
{
	kcp->threshold = most((kcp->send_next - kcp->send_una) / 2, THRESHOLD_MIN);
	kcp->window = kcp->threshold + kcp->settings.resend;
	kcp->window_octets = kcp->window * kcp->mss;
}

static void classic_lost(struct halo_kcp *kcp, uint32_t window)
{
	kcp->threshold = most(window / 2, THRESHOLD_MIN);
	kcp->window = 1;
	kcp->window_octets = kcp->mss;
}

static void classic_flushed(struct halo_kcp *kcp)
{
	if (kcp->window > 0)
		return;
	kcp->window = 1;
	kcp->window_octets = kcp->mss;
}

static const struct congestion table[HALO_KCP_CONGESTION_COUNT] = {
	[HALO_KCP_CONGESTION_NONE] =
		{
			.name = "none",
			.window = no_window,
			.acknowledged = nothing,
			.resent = nothing,
			.lost = nothing_lost,
			.flushed = nothing,
		},
	[HALO_KCP_CONGESTION_CLASSIC] =
		{
			.name = "classic",
			.window = classic_window,
			.acknowledged = classic_acknowledged,
			.resent = classic_resent,
			.lost = classic_lost,
			.flushed = classic_flushed,
		},
};

const struct congestion *halo_congestion_find(uint32_t number)
{
	return number < HALO_KCP_CONGESTION_COUNT ? &table[number] : NULL;
}
