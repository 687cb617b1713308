// A lock convoy: threads that all want one mutex, which each of them holds for long.
// Truth: wall time each waited for the mutex. Usage: convoy TRUTH_FILE SECONDS [sleep|cpu|disk] [THREADS]
//
// Who holds it does what the argument says for 5 ms: sleeps, computes, or writes to a disk until 5 ms
// have passed. Whoever waits is woken by the thread that gives it back, in `give_back`.
#include "common.h"
#include <fcntl.h>

enum { HELD_NS = 5000000, MAX_THREADS = 64 };

static uint64_t deadline_ns;
static pthread_mutex_t ledger = PTHREAD_MUTEX_INITIALIZER;
static const char *data_path;
static int data_file;
static void (*work)(void);

static struct waiter {
    uint64_t wait_ns, waits;
} waiters[MAX_THREADS];

FRAME void work_asleep(void) { sleep_ns(HELD_NS); }
FRAME void work_on_cpu(void) {
    for (uint64_t until = wall_ns() + HELD_NS; wall_ns() < until;) {
        SPIN(10000);
    }
}
FRAME void work_on_disk(void) {
    char block[4096] = {0};
    for (uint64_t until = wall_ns() + HELD_NS; wall_ns() < until;) {
        if (pwrite(data_file, block, sizeof block, 0) != sizeof block || fsync(data_file) != 0) {
            perror(data_path);
            exit(111);
        }
    }
}

FRAME void take(struct waiter *waiter) {
    uint64_t before = wall_ns();
    pthread_mutex_lock(&ledger);
    waiter->wait_ns += wall_ns() - before;
    waiter->waits++;
}
FRAME void give_back(void) { pthread_mutex_unlock(&ledger); }
FRAME void update_ledger(struct waiter *waiter) {
    take(waiter);
    work();
    give_back();
}

static void *run(void *argument) {
    struct waiter *waiter = argument;
    char comm[16];
    snprintf(comm, sizeof comm, "cv-worker-%d", (int)(waiter - waiters));
    pthread_setname_np(pthread_self(), comm);
    while (wall_ns() < deadline_ns) {
        update_ledger(waiter);
        // Long enough for the next one: a mutex is not fair.
        sleep_ns(100000);
    }
    return NULL;
}

int main(int argc, char **argv) {
    deadline_ns = wall_ns() + (uint64_t)(seconds_argument(argc, argv) * 1e9);
    const char *how = argc > 3 ? argv[3] : "sleep";
    int threads = argc > 4 ? atoi(argv[4]) : 8;
    if (threads < 1 || threads > MAX_THREADS) {
        fprintf(stderr, "1 to %d threads\n", MAX_THREADS);
        return 110;
    }
    work = strcmp(how, "cpu") == 0 ? work_on_cpu : strcmp(how, "disk") == 0 ? work_on_disk : work_asleep;
    char path[4096];
    snprintf(path, sizeof path, "%s.data", argv[1]);
    data_path = path;
    data_file = open(data_path, O_CREAT | O_TRUNC | O_WRONLY, 0600);
    pthread_t ids[MAX_THREADS];
    for (int i = 0; i < threads; i++) {
        if (pthread_create(&ids[i], NULL, run, &waiters[i]) != 0) {
            perror("pthread_create");
            return 111;
        }
    }
    uint64_t wait_ns = 0, waits = 0;
    for (int i = 0; i < threads; i++) {
        pthread_join(ids[i], NULL);
        wait_ns += waiters[i].wait_ns;
        waits += waiters[i].waits;
    }
    close(data_file);
    unlink(data_path);
    FILE *truth = truth_open(argv[1]);
    fprintf(truth, "{\"wait_ns\":%llu,\"waits\":%llu}\n", (unsigned long long)wait_ns, (unsigned long long)waits);
    truth_close(truth, argv[1]);
    return 0;
}
