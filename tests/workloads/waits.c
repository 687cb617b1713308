// Threads that wait at places of their own: many short waits, few long ones, and one thread that mixes both.
// Truth: when each began to wait where, and until when. Usage: waits TRUTH_FILE SECONDS
//
// The sites are functions, `site_*`; a wait's length is drawn anew each time, since equal ones could keep
// step with a clock that samples them. Waits are written to TRUTH_FILE.waits, a line each:
// SITE BEGIN_NS END_NS, by CLOCK_MONOTONIC.
#include "common.h"

enum { MOST_WAITS = 400000 };

struct wait {
    const char *site;
    uint64_t begin_ns, end_ns;
};

struct thread {
    const char *comm;
    void (*run)(struct thread *);
    struct wait *waits;
    int count;
    uint64_t random;
};

static uint64_t deadline_ns;
static int over(void) { return wall_ns() >= deadline_ns; }

// From `least` to twice that (xorshift64).
static uint64_t drawn(struct thread *thread, uint64_t least) {
    thread->random ^= thread->random << 13;
    thread->random ^= thread->random >> 7;
    thread->random ^= thread->random << 17;
    return least + thread->random % least;
}

static void waited(struct thread *thread, const char *site, uint64_t begin_ns) {
    if (thread->count < MOST_WAITS) {
        thread->waits[thread->count++] = (struct wait){site, begin_ns, wall_ns()};
    }
}

FRAME void site_short(uint64_t ns) { sleep_ns(ns); }
FRAME void site_long(uint64_t ns) { sleep_ns(ns); }
FRAME void site_mixed_short(uint64_t ns) { sleep_ns(ns); }
FRAME void site_mixed_long(uint64_t ns) { sleep_ns(ns); }

#define WAIT(SITE, LEAST_NS)                           \
    do {                                               \
        uint64_t ns_ = drawn(thread, (LEAST_NS));      \
        uint64_t begin_ = wall_ns();                   \
        SITE(ns_);                                     \
        waited(thread, #SITE, begin_);                 \
    } while (0)

FRAME void run_short(struct thread *thread) {
    while (!over()) {
        WAIT(site_short, 100000);
    }
}
FRAME void run_long(struct thread *thread) {
    while (!over()) {
        WAIT(site_long, 300000000);
    }
}
FRAME void run_mixed(struct thread *thread) {
    while (!over()) {
        for (int i = 0; i < 10; i++) {
            WAIT(site_mixed_short, 200000);
        }
        WAIT(site_mixed_long, 5000000);
    }
}

static struct thread threads[] = {
    {.comm = "wt-short", .run = run_short},
    {.comm = "wt-long", .run = run_long},
    {.comm = "wt-mixed", .run = run_mixed},
};
enum { THREADS = sizeof threads / sizeof *threads };

static void *run_thread(void *argument) {
    struct thread *thread = argument;
    pthread_setname_np(pthread_self(), thread->comm);
    prctl(PR_SET_TIMERSLACK, 1);
    thread->run(thread);
    return NULL;
}

int main(int argc, char **argv) {
    uint64_t begin_ns = wall_ns();
    deadline_ns = begin_ns + (uint64_t)(seconds_argument(argc, argv) * 1e9);
    pthread_t ids[THREADS];
    for (int i = 0; i < THREADS; i++) {
        threads[i].waits = malloc(sizeof(struct wait) * MOST_WAITS);
        threads[i].random = begin_ns * 2 + 1 + (uint64_t)i;
        if (!threads[i].waits || pthread_create(&ids[i], NULL, run_thread, &threads[i]) != 0) {
            perror(threads[i].comm);
            return 111;
        }
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(ids[i], NULL);
    }
    char path[4096];
    snprintf(path, sizeof path, "%s.waits", argv[1]);
    FILE *waits = fopen(path, "w");
    if (!waits) {
        perror(path);
        return 111;
    }
    for (int i = 0; i < THREADS; i++) {
        for (int j = 0; j < threads[i].count; j++) {
            struct wait *wait = &threads[i].waits[j];
            fprintf(waits, "%s %llu %llu\n", wait->site, (unsigned long long)wait->begin_ns,
                    (unsigned long long)wait->end_ns);
        }
    }
    if (fclose(waits) != 0) {
        perror(path);
        return 111;
    }
    FILE *truth = truth_open(argv[1]);
    fprintf(truth, "{\"wall_ns\":%llu}\n", (unsigned long long)(wall_ns() - begin_ns));
    truth_close(truth, argv[1]);
    return 0;
}
