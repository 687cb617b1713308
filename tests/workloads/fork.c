// A parent that only waits, children that work, and grandchildren that work too.
// Truth: CPU time of all children and grandchildren. Usage: fork TRUTH_FILE CPU_SECONDS_EACH [EARLIER]
// EARLIER children that end at once come first, one after the other; their time is not in the truth.
#include "common.h"
#include <sys/resource.h>
#include <sys/wait.h>

enum { CHILDREN = 2 };

static volatile uint64_t after_call;

FRAME void child_work(uint64_t until) {
    while (cpu_ns() < until) {
        SPIN(1000000);
    }
    after_call++;
}
FRAME void grandchild_work(uint64_t until) {
    while (cpu_ns() < until) {
        SPIN(1000000);
    }
    after_call++;
}

static pid_t start(void) {
    pid_t pid = fork();
    if (pid < 0) {
        perror("fork");
        exit(111);
    }
    return pid;
}

// CPU time of the children that have ended.
static uint64_t children_ns(void) {
    struct rusage use;
    getrusage(RUSAGE_CHILDREN, &use);
    return (uint64_t)(use.ru_utime.tv_sec + use.ru_stime.tv_sec) * 1000000000u +
           (uint64_t)(use.ru_utime.tv_usec + use.ru_stime.tv_usec) * 1000u;
}

int main(int argc, char **argv) {
    uint64_t until = (uint64_t)(seconds_argument(argc, argv) * 1e9);
    for (int i = argc > 3 ? atoi(argv[3]) : 0; i > 0; i--) {
        if (start() == 0) {
            _exit(0);
        }
        wait(NULL);
    }
    uint64_t before = children_ns();
    for (int i = 0; i < CHILDREN; i++) {
        if (start() == 0) {
            prctl(PR_SET_NAME, "fk-child");
            if (start() == 0) {
                prctl(PR_SET_NAME, "fk-grandchild");
                grandchild_work(until);
                _exit(0);
            }
            child_work(until);
            while (wait(NULL) > 0) {
            }
            _exit(0);
        }
    }
    while (wait(NULL) > 0) {
    }
    FILE *truth = truth_open(argv[1]);
    fprintf(truth, "{\"cpu_ns\":%llu,\"processes\":%d}\n", (unsigned long long)(children_ns() - before),
            2 * CHILDREN);
    truth_close(truth, argv[1]);
    return 0;
}
