// Short lives: starts processes at a steady rate, each a program that spins for a moment and is gone.
// Truth: their CPU time as the kernel accounts it to the parent, how many, and how many a second.
// Usage: short TRUTH_FILE SECONDS [A_SECOND [MILLISECONDS_EACH [COMM]]]
// COMM is the children's name: they are started through a link of that name beside the truth.
#include "common.h"
#include <spawn.h>
#include <sys/resource.h>
#include <sys/wait.h>

extern char **environ;
static volatile uint64_t after_call;

FRAME void short_spin(uint64_t until) {
    while (cpu_ns() < until) {
        for (uint64_t i = 0, x = until; i < 20000; i++) {
            x = x * 6364136223846793005u + 1442695040888963407u;
            __asm__ volatile("" : "+r"(x));
        }
    }
    after_call++;
}
FRAME void short_life(uint64_t ns) {
    short_spin(cpu_ns() + ns);
    after_call++;
}

int main(int argc, char **argv) {
    // As the child: `short - MILLISECONDS`.
    double seconds = seconds_argument(argc, argv);
    if (strcmp(argv[1], "-") == 0) {
        short_life((uint64_t)(seconds * 1e6));
        return 0;
    }
    double a_second = argc > 3 ? atof(argv[3]) : 200;
    char *each = argc > 4 ? argv[4] : "5";
    // A process is called by the last part of the path it was started by.
    char self[4096], link[4096 + 32];
    ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    char *slash = strrchr(argv[1], '/');
    if (length < 0 || !slash) {
        fprintf(stderr, "%s: TRUTH_FILE needs a directory\n", argv[0]);
        return 110;
    }
    self[length] = 0;
    snprintf(link, sizeof link, "%.*s/%.15s", (int)(slash - argv[1]), argv[1], argc > 5 ? argv[5] : "short-child");
    unlink(link);
    if (symlink(self, link) != 0) {
        perror(link);
        return 111;
    }
    char *line[] = {link, "-", each, NULL};
    uint64_t begin = wall_ns(), end = begin + (uint64_t)(seconds * 1e9), count = 0, most_running = 0, running = 0;
    while (wall_ns() < end) {
        // What is due; never so many at a time that they only wait for one another.
        while (count < (uint64_t)((double)(wall_ns() - begin) / 1e9 * a_second) + 1 && running < 16) {
            pid_t pid;
            if (posix_spawn(&pid, link, NULL, NULL, line, environ) != 0) {
                perror("posix_spawn");
                return 111;
            }
            count++;
            running++;
        }
        most_running = running > most_running ? running : most_running;
        while (running > 0 && waitpid(-1, NULL, WNOHANG) > 0) {
            running--;
        }
        sleep_ns(1000000);
    }
    while (wait(NULL) > 0) {
    }
    double took = (double)(wall_ns() - begin) / 1e9;
    struct rusage use;
    getrusage(RUSAGE_CHILDREN, &use);
    uint64_t ns = (uint64_t)(use.ru_utime.tv_sec + use.ru_stime.tv_sec) * 1000000000u +
                  (uint64_t)(use.ru_utime.tv_usec + use.ru_stime.tv_usec) * 1000u;
    FILE *truth = truth_open(argv[1]);
    fprintf(truth, "{\"cpu_ns\":%llu,\"processes\":%llu,\"a_second\":%.1f,\"most_running\":%llu}\n",
            (unsigned long long)ns, (unsigned long long)count, (double)count / took,
            (unsigned long long)most_running);
    truth_close(truth, argv[1]);
    return 0;
}
