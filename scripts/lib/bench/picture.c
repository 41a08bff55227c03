// SPDX-License-Identifier: GPL-2.0
/*
 * Usage: picture
 *
 * The receive buffer of a service that cannot follow for some seconds: how much of
 * it is free, when the first packet is lost, what khealthd's listener receives,
 * and what a poller sees that looks every ten seconds. One line a thing, for picture.py.
 */
#include "bench.h"

#define STEP_MS		25	/* a packet comes in */
#define SIZE		512
#define LENGTH_MS	20000
#define POLL_MS		10000

static struct listener listener;
static atomic_uint sent;

/* Does the service wait for something else, such as a disk? */
static bool waits(unsigned int ms)
{
	return (ms >= 2000 && ms < 8600) || (ms >= 15500 && ms < 16700);
}

int main(void)
{
	struct pair pair = open_pair();
	struct level level, before = { 0 };
	unsigned int ms;
	long long begin;

	start_listener(&listener, 16, &sent);
	sleep_until(now() + NSEC_PER_SEC);
	begin = now();
	printf("begin time=%lld\n", begin);
	for (ms = 0; ms <= LENGTH_MS; ms += STEP_MS) {
		sleep_until(begin + ms * NSEC_PER_MSEC);
		level = level_of(&pair);
		if (ms % POLL_MS == 0)
			printf("poll time=%lld used=%u capacity=%u drops=%u\n", now(),
			       level.used, level.capacity, level.drops);
		send_bytes(&pair, SIZE);
		sent++;
		level = level_of(&pair);
		if (level.drops != before.drops)
			printf("lost time=%lld drops=%u\n", now(), level.drops);
		if (level.used != before.used)
			printf("level time=%lld used=%u capacity=%u\n", now(),
			       level.used, level.capacity);
		before = level;
		if (!waits(ms))
			receive_all(&pair);
	}
	print_alerts(&listener);
	return 0;
}
