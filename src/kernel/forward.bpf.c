// SPDX-License-Identifier: MIT OR GPL-2.0-only
//
// The program that forwards datagrams between two players inside the kernel, at tc's ingress hook.
//
// It decides nothing. What it may forward, noray's core has told it in the maps below: at which port, from which exact
// source, to which receiver, how fast and how much. A datagram that is not exactly that goes up to the sockets, untouched.
// So do fragments, headers with options, tagged frames, datagrams without a checksum, and all of them once the server's
// heartbeat is old. The program drops nothing.
//
// A plain model of this file is tests/support/kernel_model.rs. The two must agree on every packet.

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/udp.h>

#define SEC(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))
#define HELPER(type, name) static type(*const bpf_##name)

// Only these helpers of the kernel are used; the newest is from Linux 5.10.
HELPER(void *, map_lookup_elem)(void *, const void *) = (void *)BPF_FUNC_map_lookup_elem;
HELPER(__u64, ktime_get_ns)(void) = (void *)BPF_FUNC_ktime_get_ns;
HELPER(long, skb_load_bytes)(const void *, __u32, void *, __u32) = (void *)BPF_FUNC_skb_load_bytes;
HELPER(long, skb_store_bytes)(void *, __u32, const void *, __u32, __u64) = (void *)BPF_FUNC_skb_store_bytes;
HELPER(long, skb_change_tail)(void *, __u32, __u64) = (void *)BPF_FUNC_skb_change_tail;
HELPER(long, l4_csum_replace)(void *, __u32, __u64, __u64, __u64) = (void *)BPF_FUNC_l4_csum_replace;
HELPER(__s64, csum_diff)(const void *, __u32, const void *, __u32, __u32) = (void *)BPF_FUNC_csum_diff;
HELPER(__s64, csum_update)(void *, __u32) = (void *)BPF_FUNC_csum_update;
HELPER(long, redirect_neigh)(__u32, void *, int, __u64) = (void *)BPF_FUNC_redirect_neigh;

// The verdict "not ours": the next program at this hook goes on, then the kernel's usual way (TC_ACT_UNSPEC, TCX_NEXT).
#define UP (-1)

#define SECOND 1000000000ULL
// A heartbeat older than this means that the server has ended, hangs or stands still.
#define HEARTBEAT (2 * SECOND)
// What a datagram is charged beside its payload: an IPv4 and a UDP header.
#define HEADERS 28
// An IPv4 datagram is not forwarded in part, nor with the bit that must be zero.
#define FRAGMENT 0xbfff
#define DONT_FRAGMENT 0x4000

// IPv4 addresses are written as IPv6 ones, ::ffff:a.b.c.d.
struct address {
    __u32 words[4];
};

// What one port forwards. Only the server writes it. src/kernel/layout.rs has the same fields.
struct route {
    struct address from;
    struct address to;
    // The address that the datagram leaves from.
    struct address via;
    __be16 from_port;
    __be16 to_port;
    __be16 via_port;
    // Which of the pair's two players sends: 0 or 1.
    __u8 sender;
    // The datagram's time to live.
    __u8 ttl;
    // Where the pair's state is.
    __u32 slot;
    // Where the datagram leaves.
    __u32 interface;
    // The largest IP packet that the way out takes.
    __u32 mtu;
    __u32 unused;
    // When the pair's life ends.
    __u64 until;
    // For how long the receiver may be silent.
    __u64 patience;
    // Bytes in a second, and the nanoseconds in which an empty bucket fills.
    __u64 rate;
    __u64 burst;
    // How often one datagram goes up, to show that the machine's firewall still lets the sender in.
    __u64 proof_interval;
};

// What is known of what a player sends.
struct sent {
    // When its bucket will be full.
    __u64 full_at;
    // When it was last heard here.
    __u64 heard;
    // When a datagram last went up as a proof, and how many did.
    __u64 proof_at;
    __u64 proofs;
    __u64 datagrams;
    __u64 payload;
};

// The state of a pair. The server writes it before there is a route to it; afterwards only this program does.
struct pair {
    struct sent sent[2];
    // Charged bytes that the pair may still carry.
    __s64 left;
};

#define MAP(name, kind, entries, key_type, value_type) \
    struct {                                           \
        int(*type)[kind];                              \
        int(*max_entries)[entries];                    \
        key_type *key;                                 \
        value_type *value;                             \
    } name SEC(".maps")

// The server sets the sizes of the first three when it loads this.
MAP(routes, BPF_MAP_TYPE_HASH, 1, __u32, struct route);
MAP(pairs, BPF_MAP_TYPE_ARRAY, 1, __u32, struct pair);
MAP(addresses, BPF_MAP_TYPE_HASH, 1, struct address, __u32);
MAP(heartbeat, BPF_MAP_TYPE_ARRAY, 1, __u32, __u64);
// How many datagrams had which size, up to 32, 64, .. bytes: as the metric noray_relay_size. An entry each, because without
// CAP_PERFMON the verifier lets nobody compute where in an entry a count is.
MAP(sizes, BPF_MAP_TYPE_PERCPU_ARRAY, 10, __u32, __u64);

// What of a datagram decides where it goes.
struct datagram {
    struct address from;
    struct address at;
    __be16 from_port;
    __be16 at_port;
    // With and without the headers of IP and UDP.
    __u32 length;
    __u32 payload;
};

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define NET16(value) ((__u16)__builtin_bswap16(value))
#define NET32(value) __builtin_bswap32(value)
#else
#define NET16(value) (value)
#define NET32(value) (value)
#endif

INLINE struct address mapped(__be32 ip)
{
    struct address address = {{0, 0, NET32(0xffff), ip}};
    return address;
}

INLINE int is_same(const struct address *one, const struct address *other)
{
    return one->words[0] == other->words[0] && one->words[1] == other->words[1] &&
           one->words[2] == other->words[2] && one->words[3] == other->words[3];
}

INLINE __u16 folded(__u32 sum)
{
    sum = (sum & 0xffff) + (sum >> 16);
    return (sum & 0xffff) + (sum >> 16);
}

// Takes what the datagram costs from the sender's bucket, if the bucket is not empty; whether it did. Where several
// processors do that at once, each tries a few times.
INLINE int charge(struct sent *sent, const struct route *route, __u64 cost, __u64 now)
{
    __u64 nanos = (cost * SECOND - 1) / route->rate + 1;
    for (int attempt = 0; attempt < 4; attempt++) {
        __u64 full_at = sent->full_at;
        if (full_at > now && full_at - now >= route->burst)
            return 0;
        __u64 start = full_at > now ? full_at : now;
        if (__sync_val_compare_and_swap(&sent->full_at, full_at, start + nanos) == full_at)
            return 1;
    }
    return 0;
}

// The route of a datagram that may pass now, which is charged. Otherwise none, and nothing has changed.
INLINE struct route *permit(const struct datagram *datagram, struct sent **of_sender)
{
    __u64 now = bpf_ktime_get_ns();
    __u32 first = 0, port = NET16(datagram->at_port);
    __u64 *beat = bpf_map_lookup_elem(&heartbeat, &first);
    if (!beat || (__s64)(now - *beat) > (__s64)HEARTBEAT)
        return 0;
    struct route *route = bpf_map_lookup_elem(&routes, &port);
    if (!route || route->from_port != datagram->from_port || !is_same(&route->from, &datagram->from))
        return 0;
    if (!bpf_map_lookup_elem(&addresses, &datagram->at))
        return 0;
    if (datagram->length > route->mtu || now >= route->until)
        return 0;
    __u32 slot = route->slot;
    struct pair *pair = bpf_map_lookup_elem(&pairs, &slot);
    if (!pair)
        return 0;
    struct sent *sender = &pair->sent[route->sender & 1], *receiver = &pair->sent[~route->sender & 1];
    if ((__s64)(now - receiver->heard) >= (__s64)route->patience)
        return 0;
    __s64 cost = datagram->payload + HEADERS;
    if (pair->left < cost)
        return 0;
    if ((__s64)(now - sender->proof_at) >= (__s64)route->proof_interval) {
        sender->proof_at = now;
        __sync_fetch_and_add(&sender->proofs, 1);
        return 0;
    }
    if (!charge(sender, route, cost, now))
        return 0;
    __sync_fetch_and_add(&pair->left, -cost);
    sender->heard = now;
    *of_sender = sender;
    return route;
}

INLINE __u32 size_class(__u32 payload)
{
    return payload <= 32     ? 0
           : payload <= 64   ? 1
           : payload <= 128  ? 2
           : payload <= 256  ? 3
           : payload <= 512  ? 4
           : payload <= 1024 ? 5
           : payload <= 1472 ? 6
           : payload <= 4096 ? 7
           : payload <= 16384 ? 8
                              : 9;
}

INLINE int send_on(const struct route *route, struct sent *sender, __u32 payload)
{
    __u32 class = size_class(payload);
    __sync_fetch_and_add(&sender->datagrams, 1);
    __sync_fetch_and_add(&sender->payload, payload);
    __u64 *of_processor = bpf_map_lookup_elem(&sizes, &class);
    if (of_processor)
        *of_processor += 1;
    return bpf_redirect_neigh(route->interface, 0, 0, 0);
}

// Cuts what Ethernet adds behind short packets.
INLINE int trim(struct __sk_buff *skb, __u32 length)
{
    return skb->len == length ? 0 : bpf_skb_change_tail(skb, length, 0);
}

// Corrects the UDP checksum at `offset`. It is changed, not made anew: what was damaged before stays so.
INLINE int correct_checksum(struct __sk_buff *skb, __u32 offset, __u32 addresses, __u32 ports)
{
    return bpf_l4_csum_replace(skb, offset, 0, addresses, BPF_F_PSEUDO_HDR | BPF_F_MARK_MANGLED_0) ||
           bpf_l4_csum_replace(skb, offset, 0, ports, BPF_F_MARK_MANGLED_0);
}

struct ipv4_headers {
    struct iphdr ip;
    struct udphdr udp;
};

INLINE int forward_ipv4(struct __sk_buff *skb)
{
    struct ipv4_headers headers;
    if (bpf_skb_load_bytes(skb, ETH_HLEN, &headers, sizeof(headers)))
        return UP;
    struct iphdr *ip = &headers.ip;
    struct udphdr *udp = &headers.udp;
    __u32 length = NET16(ip->tot_len), of_udp = NET16(udp->len);
    if (ip->version != 4 || ip->ihl != 5 || ip->protocol != IPPROTO_UDP || ip->frag_off & NET16(FRAGMENT))
        return UP;
    if (of_udp < sizeof(*udp) || length != sizeof(*ip) + of_udp || skb->len < ETH_HLEN + length || !udp->check)
        return UP;
    if (folded(bpf_csum_diff(0, 0, ip, sizeof(*ip), 0)) != 0xffff)
        return UP;
    struct datagram datagram = {
        .from = mapped(ip->saddr),
        .at = mapped(ip->daddr),
        .from_port = udp->source,
        .at_port = udp->dest,
        .length = length,
        .payload = of_udp - sizeof(*udp),
    };
    struct sent *sender = 0;
    struct route *route = permit(&datagram, &sender);
    if (!route || !sender || trim(skb, ETH_HLEN + length))
        return UP;

    // As from a socket: nothing of the sender's route shows.
    __be32 addresses[2] = {route->via.words[3], route->to.words[3]};
    __be16 ports[2] = {route->via_port, route->to_port};
    __u32 change = bpf_csum_diff(&ip->saddr, sizeof(addresses), addresses, sizeof(addresses), 0);
    __u32 port_change = bpf_csum_diff((void *)udp, sizeof(ports), (void *)ports, sizeof(ports), 0);
    ip->tos = 0;
    ip->id = 0;
    ip->frag_off = NET16(DONT_FRAGMENT);
    ip->ttl = route->ttl;
    ip->saddr = addresses[0];
    ip->daddr = addresses[1];
    ip->check = 0;
    ip->check = ~folded(bpf_csum_diff(0, 0, ip, sizeof(*ip), 0));
    udp->source = ports[0];
    udp->dest = ports[1];
    if (bpf_skb_store_bytes(skb, ETH_HLEN, &headers, sizeof(headers), 0) ||
        correct_checksum(skb, ETH_HLEN + sizeof(*ip) + 6, change, port_change))
        return UP;
    return send_on(route, sender, datagram.payload);
}

struct ipv6_headers {
    struct ipv6hdr ip;
    struct udphdr udp;
};

INLINE int forward_ipv6(struct __sk_buff *skb)
{
    struct ipv6_headers headers;
    if (bpf_skb_load_bytes(skb, ETH_HLEN, &headers, sizeof(headers)))
        return UP;
    struct ipv6hdr *ip = &headers.ip, old = headers.ip;
    struct udphdr *udp = &headers.udp;
    __u32 of_udp = NET16(udp->len), length = sizeof(*ip) + of_udp;
    if (ip->version != 6 || ip->nexthdr != IPPROTO_UDP || of_udp < sizeof(*udp) || ip->payload_len != udp->len)
        return UP;
    if (skb->len < ETH_HLEN + length || !udp->check)
        return UP;
    struct datagram datagram = {
        .from_port = udp->source,
        .at_port = udp->dest,
        .length = length,
        .payload = of_udp - sizeof(*udp),
    };
    __builtin_memcpy(&datagram.from, &ip->saddr, sizeof(ip->saddr));
    __builtin_memcpy(&datagram.at, &ip->daddr, sizeof(ip->daddr));
    struct sent *sender = 0;
    struct route *route = permit(&datagram, &sender);
    if (!route || !sender || trim(skb, ETH_HLEN + length))
        return UP;

    __be16 ports[2] = {route->via_port, route->to_port};
    __u32 port_change = bpf_csum_diff((void *)udp, sizeof(ports), (void *)ports, sizeof(ports), 0);
    // The traffic class and the flow label are zero.
    *(__be32 *)ip = NET32(0x60000000);
    ip->hop_limit = route->ttl;
    __builtin_memcpy(&ip->saddr, &route->via, sizeof(ip->saddr));
    __builtin_memcpy(&ip->daddr, &route->to, sizeof(ip->daddr));
    udp->source = ports[0];
    udp->dest = ports[1];
    __u32 change = bpf_csum_diff((void *)&old.saddr, 32, (void *)&ip->saddr, 32, 0);
    if (bpf_skb_store_bytes(skb, ETH_HLEN, &headers, sizeof(headers), 0) ||
        correct_checksum(skb, ETH_HLEN + sizeof(*ip) + 6, change, port_change))
        return UP;
    // Some network cards sum up the whole packet. The helper above has corrected that sum as for IPv4, whose header has a
    // checksum of its own; here the header's change counts. It fails where there is no such sum.
    bpf_csum_update(skb, bpf_csum_diff((void *)&old, sizeof(old), (void *)ip, sizeof(*ip), 0));
    return send_on(route, sender, datagram.payload);
}

SEC("classifier")
int noray_forward(struct __sk_buff *skb)
{
    // Frames for others, tagged frames, and several datagrams in one.
    if (skb->pkt_type != PACKET_HOST || skb->vlan_present || skb->gso_size)
        return UP;
    if (skb->protocol == NET16(ETH_P_IP))
        return forward_ipv4(skb);
    if (skb->protocol == NET16(ETH_P_IPV6))
        return forward_ipv6(skb);
    return UP;
}

char terms[] SEC("license") = "Dual MIT/GPL";
