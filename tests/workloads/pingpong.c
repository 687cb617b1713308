// Two threads that do nothing but hand a byte to each other through pipes, on one CPU.
// Truth: how often, and in how long. Usage: pingpong TRUTH_FILE SECONDS
#include "common.h"

static int there[2], back[2];

static void on_first_cpu(void) {
    cpu_set_t allowed, first;
    sched_getaffinity(0, sizeof allowed, &allowed);
    CPU_ZERO(&first);
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (CPU_ISSET(cpu, &allowed)) {
            CPU_SET(cpu, &first);
            break;
        }
    }
    sched_setaffinity(0, sizeof first, &first);
}

static void *pong(void *unused) {
    char byte;
    while (read(there[0], &byte, 1) == 1 && write(back[1], &byte, 1) == 1) {
    }
    return unused;
}

int main(int argc, char **argv) {
    double seconds = seconds_argument(argc, argv);
    on_first_cpu();
    pthread_t id;
    if (pipe(there) != 0 || pipe(back) != 0 || pthread_create(&id, NULL, pong, NULL) != 0) {
        perror("pingpong");
        return 111;
    }
    uint64_t begin = wall_ns(), begin_cpu = cpu_ns(), end = begin + (uint64_t)(seconds * 1e9), rounds = 0;
    char byte = 'x';
    while (wall_ns() < end) {
        for (int i = 0; i < 64; i++, rounds++) {
            if (write(there[1], &byte, 1) != 1 || read(back[0], &byte, 1) != 1) {
                return 111;
            }
        }
    }
    FILE *truth = truth_open(argv[1]);
    fprintf(truth, "{\"switches\":%llu,\"wall_ns\":%llu,\"cpu_ns\":%llu}\n", (unsigned long long)(2 * rounds),
            (unsigned long long)(wall_ns() - begin), (unsigned long long)(cpu_ns() - begin_cpu));
    truth_close(truth, argv[1]);
    _exit(0);
}
