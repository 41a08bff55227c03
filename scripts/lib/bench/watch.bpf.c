// SPDX-License-Identifier: GPL-2.0
/*
 * What a program that warns before the drop has to do at the least: look, when a
 * packet is about to be charged to a socket, how much is taken of how much, and
 * compare. What is to happen then is left out; so is a way to tell sockets apart.
 * For cost.sh, by watch.c.
 */
#include <linux/bpf.h>
#include <linux/ptrace.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>

#define LOW	12	/* percent */

struct sock {
	struct {
		struct {
			int counter;
		} rmem_alloc;
	} sk_backlog;
	int sk_rcvbuf;
} __attribute__((preserve_access_index));

struct sk_buff;

unsigned long below;

static __always_inline int compare(unsigned int used, unsigned int capacity)
{
	if (used * 100ULL > capacity * (100ULL - LOW))
		below++;
	return 0;
}

#define WATCH(function)								\
SEC("fentry/" #function)							\
int BPF_PROG(fentry_##function, struct sock *sk)				\
{										\
	return compare(sk->sk_backlog.rmem_alloc.counter, sk->sk_rcvbuf);	\
}										\
										\
SEC("kprobe/" #function)							\
int BPF_KPROBE(kprobe_##function, struct sock *sk)				\
{										\
	return compare(BPF_CORE_READ(sk, sk_backlog.rmem_alloc.counter),	\
		       BPF_CORE_READ(sk, sk_rcvbuf));				\
}

WATCH(__udp_enqueue_schedule_skb)
WATCH(__sock_queue_rcv_skb)
WATCH(netlink_attachskb)
WATCH(tcp_data_queue)

char LICENSE[] SEC("license") = "GPL";
