/* SPDX-License-Identifier: Apache-2.0 */
/* Giving up root for good, once everything is mapped. */
#define _GNU_SOURCE
#include <errno.h>
#include <grp.h>
#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <halo/fastpath.h>

/* What no program that is started later could get either. Needs CAP_SETPCAP, so before anything else goes. */
static int empty_bounding_set(void)
{
	int capability;

	for (capability = 0; capability <= CAP_LAST_CAP; capability++)
		if (prctl(PR_CAPBSET_READ, capability) == 1 && prctl(PR_CAPBSET_DROP, capability) < 0 && errno != EPERM)
			return -errno;
	return 0;
}

static int clear_capabilities(void)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
	struct __user_cap_data_struct none[2] = {{0, 0, 0}, {0, 0, 0}};

	if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0 && errno != EINVAL)
		return -errno;
	return syscall(SYS_capset, &header, none) < 0 ? -errno : 0;
}

static int change_user(uint32_t uid, uint32_t gid)
{
	if (setgroups(0, NULL) < 0 || setresgid(gid, gid, gid) < 0 || setresuid(uid, uid, uid) < 0)
		return -errno;
	return setuid(0) == 0 && uid != 0 ? -EPERM : 0; /* root must not come back */
}

int halo_drop_privileges(uint32_t uid, uint32_t gid, int keep_uid)
{
	int error;

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return -errno;
	error = empty_bounding_set();
	if (!error && !keep_uid)
		error = change_user(uid, gid);
	return error ? error : clear_capabilities();
}
