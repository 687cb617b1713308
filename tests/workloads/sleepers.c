// Threads that do nothing but sleep, a fixed time at a go.
// Truth: the time each spent asleep. Usage: sleepers TRUTH_FILE SECONDS [THREADS [MILLISECONDS_EACH]]
#include "common.h"

enum { MOST_THREADS = 256 };

static uint64_t deadline_ns, nap_ns;
static struct {
    uint64_t wait_ns, waits;
} truth_of[MOST_THREADS];

FRAME void sleep_loop(int index) {
    while (wall_ns() < deadline_ns) {
        uint64_t before = wall_ns();
        sleep_ns(nap_ns);
        truth_of[index].wait_ns += wall_ns() - before;
        truth_of[index].waits++;
    }
}

static void *sleeper(void *argument) {
    int index = (int)(intptr_t)argument;
    char name[16];
    snprintf(name, sizeof name, "sl-%d", index);
    pthread_setname_np(pthread_self(), name);
    sleep_loop(index);
    return NULL;
}

int main(int argc, char **argv) {
    deadline_ns = wall_ns() + (uint64_t)(seconds_argument(argc, argv) * 1e9);
    int threads = argc > 3 ? atoi(argv[3]) : 4;
    nap_ns = (uint64_t)((argc > 4 ? atof(argv[4]) : 10.0) * 1e6);
    if (threads < 1 || threads > MOST_THREADS || nap_ns == 0) {
        fprintf(stderr, "%s: 1 to %d threads, naps above 0 ms\n", argv[0], MOST_THREADS);
        return 110;
    }
    pthread_t ids[MOST_THREADS];
    for (int i = 0; i < threads; i++) {
        if (pthread_create(&ids[i], NULL, sleeper, (void *)(intptr_t)i) != 0) {
            return 111;
        }
    }
    for (int i = 0; i < threads; i++) {
        pthread_join(ids[i], NULL);
    }
    FILE *truth = truth_open(argv[1]);
    fprintf(truth, "{\"roles\":[");
    for (int i = 0; i < threads; i++) {
        fprintf(truth, "%s{\"comm\":\"sl-%d\",\"wait_ns\":%llu,\"waits\":%llu}", i ? "," : "", i,
                (unsigned long long)truth_of[i].wait_ns, (unsigned long long)truth_of[i].waits);
    }
    fprintf(truth, "]}\n");
    truth_close(truth, argv[1]);
    return 0;
}
