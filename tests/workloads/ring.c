// Threads that hand a token round in a ring, one ring on each CPU, with a fixed piece of work at each hand:
// how many times they do it in a given time is what a profiler costs them. A ring of two is a ping-pong.
// Truth: how often, in how long, and how many switches the kernel counted.
// Usage: ring TRUTH_FILE SECONDS [pipe|futex [THREADS [WORK [CPUS [WARM_UP_SECONDS]]]]]
//
// THREADS is the number in each ring, WORK the rounds of SPIN at each hand (0: only switches), CPUS how many
// rings. Nothing before the end of the warm-up is counted.
#include "common.h"
#include <linux/futex.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <sys/syscall.h>

enum { MOST_CPUS = 64, MOST_THREADS = 2000, STACK_BYTES = 128 * 1024 };

struct hand {
    // Where the token arrives: the end of a pipe, or a word that is 1 while it is here.
    int pipe_ends[2];
    _Atomic int here;
    struct hand *next;
    int cpu;
    // Hands over so far.
    _Atomic uint64_t passes;
} __attribute__((aligned(64)));

static struct hand *hands;
static int by_futex;
static uint64_t work;

static void failed(const char *what) {
    perror(what);
    exit(111);
}

FRAME void wait_for_token(struct hand *hand) {
    if (by_futex) {
        while (atomic_load(&hand->here) == 0) {
            syscall(SYS_futex, &hand->here, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0);
        }
        atomic_store(&hand->here, 0);
        return;
    }
    char byte;
    if (read(hand->pipe_ends[0], &byte, 1) != 1) {
        failed("read");
    }
}

FRAME void hand_over(struct hand *hand) {
    if (by_futex) {
        atomic_store(&hand->next->here, 1);
        syscall(SYS_futex, &hand->next->here, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
    } else if (write(hand->next->pipe_ends[1], "x", 1) != 1) {
        failed("write");
    }
    atomic_store_explicit(&hand->passes, atomic_load_explicit(&hand->passes, memory_order_relaxed) + 1,
                          memory_order_relaxed);
}

static void on_cpu(int cpu) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    if (sched_setaffinity(0, sizeof set, &set) != 0) {
        failed("sched_setaffinity");
    }
}

static void *run_hand(void *argument) {
    struct hand *hand = argument;
    on_cpu(hand->cpu);
    for (;;) {
        wait_for_token(hand);
        SPIN(work);
        hand_over(hand);
    }
    return NULL;
}

struct count {
    uint64_t wall_ns, cpu_ns, passes, switches;
};

static struct count counted(int all) {
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    struct count now = {.wall_ns = wall_ns(), .cpu_ns = cpu_ns(),
                        .switches = (uint64_t)(used.ru_nvcsw + used.ru_nivcsw)};
    for (int i = 0; i < all; i++) {
        now.passes += atomic_load_explicit(&hands[i].passes, memory_order_relaxed);
    }
    return now;
}

static int number(int argc, char **argv, int index, int otherwise, int most) {
    int value = argc > index ? atoi(argv[index]) : otherwise;
    if (value < 1 || value > most) {
        fprintf(stderr, "ring: argument %d is not from 1 to %d\n", index, most);
        exit(110);
    }
    return value;
}

int main(int argc, char **argv) {
    double seconds = seconds_argument(argc, argv);
    by_futex = argc > 3 && strcmp(argv[3], "futex") == 0;
    int threads = number(argc, argv, 4, 2, MOST_THREADS);
    work = argc > 5 ? strtoull(argv[5], NULL, 10) : 0;
    int rings = number(argc, argv, 6, 1, MOST_CPUS);
    double warm_up = argc > 7 ? atof(argv[7]) : 0.0;

    cpu_set_t allowed;
    sched_getaffinity(0, sizeof allowed, &allowed);
    int all = rings * threads, cpu = -1;
    hands = aligned_alloc(64, sizeof *hands * (size_t)all);
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, STACK_BYTES);
    if (!hands) {
        failed("aligned_alloc");
    }
    memset(hands, 0, sizeof *hands * (size_t)all);
    for (int ring = 0; ring < rings; ring++) {
        do {
            cpu++;
        } while (cpu < CPU_SETSIZE && !CPU_ISSET(cpu, &allowed));
        if (cpu == CPU_SETSIZE) {
            fprintf(stderr, "ring: there are but %d CPUs\n", ring);
            return 110;
        }
        for (int i = 0; i < threads; i++) {
            struct hand *hand = &hands[ring * threads + i];
            hand->next = &hands[ring * threads + (i + 1) % threads];
            hand->cpu = cpu;
            if (!by_futex && pipe(hand->pipe_ends) != 0) {
                failed("pipe");
            }
        }
    }
    for (int i = 0; i < all; i++) {
        pthread_t id;
        if (pthread_create(&id, &small, run_hand, &hands[i]) != 0) {
            failed("pthread_create");
        }
    }
    for (int ring = 0; ring < rings; ring++) {
        // The last one passes the token to the first.
        hand_over(&hands[ring * threads + threads - 1]);
    }
    sleep_ns((uint64_t)(warm_up * 1e9));
    struct count begin = counted(all);
    sleep_ns((uint64_t)(seconds * 1e9));
    struct count end = counted(all);
    FILE *truth = truth_open(argv[1]);
    fprintf(truth, "{\"passes\":%llu,\"switches\":%llu,\"wall_ns\":%llu,\"cpu_ns\":%llu}\n",
            (unsigned long long)(end.passes - begin.passes), (unsigned long long)(end.switches - begin.switches),
            (unsigned long long)(end.wall_ns - begin.wall_ns), (unsigned long long)(end.cpu_ns - begin.cpu_ns));
    truth_close(truth, argv[1]);
    _exit(0);
}
