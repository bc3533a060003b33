/* SPDX-License-Identifier: Apache-2.0 */
/* Names and sentences of the drop reasons. */
#include <halo/fastpath.h>

static const char *const names[] = {
#define X(name, text) #name,
#include <halo/drop_def.h>
#undef X
};

static const char *const texts[] = {
#define X(name, text) text,
#include <halo/drop_def.h>
#undef X
};

const char *halo_drop_name(unsigned int reason)
{
	return reason < HALO_DROP_COUNT ? names[reason] : NULL;
}

const char *halo_drop_text(unsigned int reason)
{
	return reason < HALO_DROP_COUNT ? texts[reason] : NULL;
}
