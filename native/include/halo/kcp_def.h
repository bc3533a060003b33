/* SPDX-License-Identifier: Apache-2.0 */
/*
 * KCP: a reliable transport over datagrams, as state machines. Nothing here does I/O, looks at a clock or keeps a global:
 * `now_ms` is an argument, of any clock that counts milliseconds, may wrap, and never goes back (after a step back what is
 * in flight waits until the clock is there again); one session, or one group with all its sessions, has one caller at a
 * time. native/kcp/session.c has the theory of operation.
 *
 * Functions return 0 or a count, or a negative errno, where no verdict or other value is named.
 */

enum halo_kcp_format {
	HALO_KCP_CLASSIC = 0, /* 24 octets: a conv of 32 bits */
	HALO_KCP_HALO = 1,    /* 28 octets: a conv of 64 bits */
};

/* Other than OFF: four octets more in each header, over the payload of a PUSH; 0 in other segments. */
enum halo_kcp_check {
	HALO_KCP_CHECK_OFF = 0,
	HALO_KCP_CHECK_ZERO = 1,
	HALO_KCP_CHECK_CRC32 = 2,
	HALO_KCP_CHECK_XXH3 = 3, /* low half of XXH3-64 */
};

enum halo_kcp_congestion {
	HALO_KCP_CONGESTION_NONE = 0,
	HALO_KCP_CONGESTION_CLASSIC = 1,
	HALO_KCP_CONGESTION_COUNT = 2,
};

/* Why a session has ended. One that has ended sends nothing and takes nothing in; what it has received can be read. */
enum halo_kcp_end {
	HALO_KCP_ALIVE = 0,
	HALO_KCP_DEAD_LINK = 1, /* a segment was sent dead_link times */
	HALO_KCP_CLOSED = 2,    /* halo_kcp_close() */
};

/* What halo_kcp_input() thinks of a datagram. */
enum halo_kcp_verdict {
	HALO_KCP_TAKEN = 0,
	HALO_KCP_BAD_CONV = -1, /* or shorter than a header */
	HALO_KCP_BAD_LENGTH = -2,
	HALO_KCP_BAD_COMMAND = -3,
	HALO_KCP_BAD_CHECK = -4, /* nothing of the datagram was taken, and nothing is acknowledged */
	HALO_KCP_ENDED = -5,
};

enum halo_kcp_limit {
	HALO_KCP_MAX_WINDOW = 65535, /* segments */
	HALO_KCP_MAX_FRAGMENTS = 255,
	HALO_KCP_MIN_MTU = 50,
	HALO_KCP_MAX_MTU = 65507,
	HALO_KCP_MAX_QUEUE = 1 << 22, /* segments, sent or not, that are not yet acknowledged */
	HALO_KCP_NO_DEADLINE = 0x7fffffff,
	HALO_KCP_NO_SESSION = -1,
};

struct halo_kcp_settings {
	uint32_t format; /* enum halo_kcp_format */
	uint32_t check;  /* enum halo_kcp_check */
	uint32_t mtu;    /* octets of a datagram, headers of KCP among them */
	uint32_t stream; /* != 0: messages are merged, and read as octets */
	uint32_t send_window;
	uint32_t receive_window;
	uint32_t interval_ms;    /* of flushing, 1 to 5000 */
	uint32_t nodelay;        /* 0: time-outs double; 1: grow by half; 2: by half of the measured one */
	uint32_t min_rto_ms;     /* 0: 30 with nodelay, 100 without */
	uint32_t resend;         /* later acknowledgements after which a segment is sent again; 0: never */
	uint32_t fast_limit;     /* times that a segment may have been sent when that is done; 0: any */
	uint32_t conserve;       /* != 0: only those of segments sent no earlier count for `resend` */
	uint32_t early;          /* != 0: one is enough when there is nothing new to send */
	uint32_t congestion;     /* enum halo_kcp_congestion */
	uint32_t dead_link;      /* times that one segment is sent before the session has ended */
	uint32_t most_fragments; /* of a message, 1 to 255; the peer's receive window must hold them */
	uint32_t ack_no_delay;   /* != 0: acknowledgements leave at the next poll, not the next interval */
	uint32_t write_delay;    /* 0: so does what was written; != 0: at the next interval */
	uint32_t flush_on_ack;   /* != 0: all is flushed when the peer's una moves on, acks when they fill a datagram */
	uint32_t probe_ms;       /* until a peer without window is asked for it first; 0: 7000, as the reference */
	uint32_t reserved;
};

/* What has gone since the session was created. Octets of datagrams are without headers of UDP and below. */
struct halo_kcp_counters {
	uint64_t bytes_sent;     /* by the application */
	uint64_t bytes_received; /* to the application */
	uint64_t in_packets;
	uint64_t out_packets;
	uint64_t in_segments;
	uint64_t out_segments;
	uint64_t in_bytes;
	uint64_t out_bytes;
	uint64_t in_errors;     /* datagrams refused, for whatever reason */
	uint64_t check_errors;  /* those with a wrong check */
	uint64_t retransmitted; /* segments: fast + early + lost */
	uint64_t fast;
	uint64_t early;
	uint64_t lost;      /* timed out */
	uint64_t repeated;  /* segments received that had come before */
	uint64_t strangers; /* datagrams of this conv from another peer, without proof that it is the session's */
};

struct halo_kcp_info {
	uint64_t conv;
	uint32_t end;     /* enum halo_kcp_end */
	uint32_t srtt_ms; /* 0: not measured yet */
	uint32_t rttvar_ms;
	uint32_t rto_ms;
	uint32_t send_window;
	uint32_t receive_window;
	uint32_t remote_window;
	uint32_t congestion_window;
	uint32_t slow_start_threshold;
	uint32_t queued;    /* segments that were never sent */
	uint32_t in_flight; /* sent, not acknowledged */
	uint32_t unread;    /* in order, for the application */
	uint32_t held;      /* received, behind a gap */
	uint32_t mss;       /* octets of payload in a segment */
	uint32_t send_next; /* sn */
	uint32_t send_una;
	uint32_t receive_next;
	uint32_t octets; /* memory of the session now, that of its queues among it */
};

struct halo_kcp;

struct halo_kcp_datagram {
	const uint8_t *octets;
	uint32_t length;
	uint32_t session; /* number in the group; 0 for a session alone */
};

/*
 * What is to be sent; the struct is the caller's, zeros at first, what it points to is the batch's. With `by_reference`
 * a datagram that is one full segment stays where it is, in the session: it must have left, or been kept, before the
 * session is called again, poll apart, or freed. Nothing checks that: what was acknowledged meanwhile may be another segment.
 * Without, datagrams lie one behind the other in `octets`, until halo_kcp_output_clear().
 */
struct halo_kcp_output {
	uint8_t *octets;
	struct halo_kcp_datagram *datagram;
	uint32_t used;
	uint32_t room;
	uint32_t count;
	uint32_t most;
	uint32_t by_reference;
	uint32_t limit; /* datagrams after which halo_kcp_group_poll() comes back; 0: none */
};

void halo_kcp_output_clear(struct halo_kcp_output *output);
/* Copy datagrams from number `from` on that still lie in sessions; those that there is no memory for are lost. */
void halo_kcp_output_keep(struct halo_kcp_output *output, uint32_t from);
void halo_kcp_output_free(struct halo_kcp_output *output);

/* The reference's settings: classic, MTU 1400, windows 32 and 128, interval 100 ms, classic congestion control. */
void halo_kcp_settings_default(struct halo_kcp_settings *settings);
/* NULL, or the name of the first field that can not be. */
const char *halo_kcp_settings_check(const struct halo_kcp_settings *settings);

/* NULL: no memory, or settings that can not be. */
struct halo_kcp *halo_kcp_create(uint64_t conv, const struct halo_kcp_settings *settings);
void halo_kcp_free(struct halo_kcp *kcp);
/* Begin at other sequence numbers than 0, as the peer must do too. -EBUSY: it has begun. */
int halo_kcp_start(struct halo_kcp *kcp, uint32_t send_next, uint32_t receive_next);
/* -EINVAL: they can not be, or format or check are others. A new MTU is that of segments which are written from now on. */
int halo_kcp_change(struct halo_kcp *kcp, const struct halo_kcp_settings *settings);
void halo_kcp_settings_read(const struct halo_kcp *kcp, struct halo_kcp_settings *settings);
/* End it here: nothing is said to the peer. */
void halo_kcp_close(struct halo_kcp *kcp);

/*
 * Write one message, or in stream mode octets; nothing is sent before the next poll. Returns `length`. -EMSGSIZE: more
 * than most_fragments; -EPIPE: the session has ended; -ENOBUFS: HALO_KCP_MAX_QUEUE; -ENOMEM. All or nothing.
 */
int64_t halo_kcp_send(struct halo_kcp *kcp, const uint8_t *octets, uint64_t length);
/* Octets of the next message, or in stream mode of all there is; -EAGAIN: none that is whole. */
int64_t halo_kcp_peek(const struct halo_kcp *kcp);
/* Read the next message (-EMSGSIZE: there is not `room` for it), or in stream mode as much as fits. */
int64_t halo_kcp_receive(struct halo_kcp *kcp, uint8_t *octets, uint64_t room);
/* Take in one datagram. Returns an enum halo_kcp_verdict. */
int halo_kcp_input(struct halo_kcp *kcp, const uint8_t *octets, uint64_t length, uint32_t now_ms);
/* Append what is due to `output`; returns how many datagrams. When memory is short a segment counts as lost. */
uint32_t halo_kcp_poll(struct halo_kcp *kcp, uint32_t now_ms, struct halo_kcp_output *output);
/* Milliseconds until poll wants to be called; HALO_KCP_NO_DEADLINE: not before something is written, read or comes in. */
uint32_t halo_kcp_next(const struct halo_kcp *kcp, uint32_t now_ms);
/* Ask the peer for its window with the next poll: it answers, so that one knows that it lives. */
void halo_kcp_probe(struct halo_kcp *kcp);
/*
 * So many segments may wait for the application that do not count in the window: as if it had read them into a buffer of
 * its own: segments of our own mss, fewer when they are longer. Together with the window no more than HALO_KCP_MAX_WINDOW; not
 * part of the state that is exported.
 */
void halo_kcp_allow(struct halo_kcp *kcp, uint32_t segments);
/* Segments written that are not yet acknowledged. */
uint32_t halo_kcp_waiting(const struct halo_kcp *kcp);
void halo_kcp_counters_read(const struct halo_kcp *kcp, struct halo_kcp_counters *counters);
void halo_kcp_info_read(const struct halo_kcp *kcp, struct halo_kcp_info *info);
/* The conv of a datagram. -EINVAL: it is too short to have one. */
int halo_kcp_conv(uint32_t format, const uint8_t *octets, uint64_t length, uint64_t *conv);

/*
 * The whole state as octets, for a successor on the same machine with the same clock. export returns how many there are,
 * and writes none when there is not `room` for all. import checks all it reads; NULL: no memory, or no such octets.
 */
uint64_t halo_kcp_export(const struct halo_kcp *kcp, uint8_t *octets, uint64_t room);
struct halo_kcp *halo_kcp_import(const uint8_t *octets, uint64_t length);

/* Over `octets`; 0 with OFF and ZERO. */
uint32_t halo_kcp_check_value(uint32_t check, const uint8_t *octets, uint32_t length);

/* Where a datagram comes from, or a session's go. Compared octet by octet: what is not used is 0. */
struct halo_kcp_peer {
	uint16_t family; /* 4, 6, or any number of the caller's; 0: no peer */
	uint16_t port;
	uint32_t scope;
	uint8_t address[16]; /* IPv4: the first four */
};

struct halo_kcp_incoming {
	const uint8_t *octets;
	uint32_t length;
	uint32_t reserved;
	struct halo_kcp_peer peer;
};

/* Bits of struct halo_kcp_event. */
enum halo_kcp_what {
	HALO_KCP_READABLE = 1,   /* there is more to read than before */
	HALO_KCP_WRITABLE = 2,   /* as halo_kcp_group_want() asked */
	HALO_KCP_ENDING = 4,     /* it has ended; halo_kcp_info_read() tells why */
	HALO_KCP_MOVED = 8,      /* to the peer of this datagram; the group has noted it */
	HALO_KCP_ALARM = 16,     /* as halo_kcp_group_alarm() asked */
	HALO_KCP_REFUSED = 32,   /* this datagram, with this verdict */
	HALO_KCP_UNKNOWN = 64,   /* no session of that conv, or in the classic format of that conv and peer */
	HALO_KCP_STRANGER = 128, /* of a session, but from elsewhere and without proof; nothing was taken */
};

/* One for each session, with all that happened to it in one call; one for each datagram of no session. */
struct halo_kcp_event {
	uint32_t session; /* number; UNKNOWN: HALO_KCP_NO_SESSION */
	uint32_t what;
	uint32_t datagram; /* MOVED, REFUSED, UNKNOWN, STRANGER: the last one that did it */
	int32_t verdict;
};

/*
 * The struct is the caller's, zeros at first. Calls append. When there is no memory for an event that is counted; WRITABLE,
 * ENDING and ALARM are told at the next poll then, the others are lost.
 */
struct halo_kcp_events {
	struct halo_kcp_event *event;
	uint32_t count;
	uint32_t most;
	uint64_t lost;
};

void halo_kcp_events_clear(struct halo_kcp_events *events);
void halo_kcp_events_free(struct halo_kcp_events *events);

struct halo_kcp_group;

/* Sessions of one format that share one socket: found by conv (halo) or by peer and conv (classic). NULL: no memory. */
struct halo_kcp_group *halo_kcp_group_create(uint32_t format, uint32_t most_sessions);
/* With its sessions. */
void halo_kcp_group_free(struct halo_kcp_group *group);
/*
 * The session is the group's from now on. Returns its number. -EEXIST: there is one of that conv (and peer); -ENOSPC:
 * there are most_sessions; -EINVAL: another format, or a member already. `migrate` != 0 (halo format only): it follows
 * its peer to another address, after a datagram from there that is right and within the windows.
 */
int64_t halo_kcp_group_add(struct halo_kcp_group *group, struct halo_kcp *kcp, const struct halo_kcp_peer *peer,
			   uint32_t migrate, uint32_t now_ms);
/* The session is the caller's again; NULL: there is none of that number. */
struct halo_kcp *halo_kcp_group_remove(struct halo_kcp_group *group, uint32_t number);
/* To read its info and counters. NULL: there is none. */
struct halo_kcp *halo_kcp_group_session(const struct halo_kcp_group *group, uint32_t number);
/* The number of a session, or -ENOENT. `peer` matters in the classic format only. */
int64_t halo_kcp_group_find(const struct halo_kcp_group *group, uint64_t conv, const struct halo_kcp_peer *peer);
int halo_kcp_group_peer(const struct halo_kcp_group *group, uint32_t number, struct halo_kcp_peer *peer);
/* When a datagram of it was last taken. */
int halo_kcp_group_heard(const struct halo_kcp_group *group, uint32_t number, uint32_t *now_ms);
uint32_t halo_kcp_group_count(const struct halo_kcp_group *group);

/* As for a session alone; and the group's timers know of it. -ENOENT: no such number. */
int64_t halo_kcp_group_send(struct halo_kcp_group *group, uint32_t number, const uint8_t *octets, uint64_t length,
			    uint32_t now_ms);
int64_t halo_kcp_group_receive(struct halo_kcp_group *group, uint32_t number, uint8_t *octets, uint64_t room,
			       uint32_t now_ms);
/* Tell once, at an input or a poll, when no more than so many segments wait. Right away at the next poll if it is so. */
int halo_kcp_group_want(struct halo_kcp_group *group, uint32_t number, uint32_t segments, uint32_t now_ms);
int halo_kcp_group_probe(struct halo_kcp_group *group, uint32_t number, uint32_t now_ms);
/* Tell once, at the first poll so many ms from now. HALO_KCP_NO_DEADLINE: not any more. */
int halo_kcp_group_alarm(struct halo_kcp_group *group, uint32_t number, uint32_t in_ms, uint32_t now_ms);

void halo_kcp_group_input(struct halo_kcp_group *group, const struct halo_kcp_incoming *incoming, uint32_t count,
			  uint32_t now_ms, struct halo_kcp_events *events);
/*
 * The same, but payloads stay where they are until halo_kcp_group_settle(): what is read before that is copied once, what
 * is not is copied then. `incoming` may go at once, its octets not before.
 */
void halo_kcp_group_borrow(struct halo_kcp_group *group, const struct halo_kcp_incoming *incoming, uint32_t count,
			   uint32_t now_ms, struct halo_kcp_events *events);
void halo_kcp_group_settle(struct halo_kcp_group *group);
/* Poll the sessions that are due, no others; returns how many datagrams were appended. */
uint32_t halo_kcp_group_poll(struct halo_kcp_group *group, uint32_t now_ms, struct halo_kcp_output *output,
			     struct halo_kcp_events *events);
/* Milliseconds until then; HALO_KCP_NO_DEADLINE: not before something else happens. */
uint32_t halo_kcp_group_next(const struct halo_kcp_group *group, uint32_t now_ms);
/* Sums over all sessions that are or were its: they never go backwards. */
void halo_kcp_group_counters(const struct halo_kcp_group *group, struct halo_kcp_counters *counters);
/* Octets of memory: the group's own, with its spare segments, without its sessions'. */
uint64_t halo_kcp_group_octets(const struct halo_kcp_group *group);
