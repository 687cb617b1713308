// What every workload needs: clocks, names of threads, a deadline, and a file for its own truth.
#pragma once
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

// Neither inlined nor cloned nor merged with an equal function: it has its own frame and name.
#define FRAME __attribute__((noipa))

static inline uint64_t clock_ns(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}
static inline uint64_t wall_ns(void) { return clock_ns(CLOCK_MONOTONIC); }
static inline uint64_t cpu_ns(void) { return clock_ns(CLOCK_PROCESS_CPUTIME_ID); }

static inline void sleep_ns(uint64_t ns) {
    struct timespec t = {.tv_sec = (time_t)(ns / 1000000000u), .tv_nsec = (long)(ns % 1000000000u)};
    while (clock_nanosleep(CLOCK_MONOTONIC, 0, &t, &t) == EINTR) {
    }
}

// Keeps a CPU busy for about `rounds` * 1 ns without memory traffic or a system call. A macro, so
// that debug information knows of no inlined function: the frame on top is the one that uses it.
// Asking for the frame's address makes the compiler set up a frame even in a function that calls
// nothing: without one, a walk along frame pointers misses such a function's caller.
static volatile uint64_t spin_sink;
#define SPIN(ROUNDS)                                          \
    do {                                                      \
        __asm__ volatile("" ::"r"(__builtin_frame_address(0))); \
        uint64_t x_ = spin_sink;                              \
        for (uint64_t i_ = 0, n_ = (ROUNDS); i_ < n_; i_++) { \
            x_ = x_ * 6364136223846793005u + 1442695040888963407u; \
            __asm__ volatile("" : "+r"(x_));                  \
        }                                                     \
        spin_sink = x_;                                       \
    } while (0)

// argv[1]: file for the truth. Written under another name first, so that a reader never sees half.
static inline FILE *truth_open(const char *path) {
    char draft[4096];
    snprintf(draft, sizeof draft, "%s.draft", path);
    FILE *file = fopen(draft, "w");
    if (!file) {
        perror(draft);
        exit(111);
    }
    return file;
}
static inline void truth_close(FILE *file, const char *path) {
    char draft[4096];
    snprintf(draft, sizeof draft, "%s.draft", path);
    if (fclose(file) != 0 || rename(draft, path) != 0) {
        perror(path);
        exit(111);
    }
}

// The arguments each workload starts with: TRUTH_FILE SECONDS.
static inline double seconds_argument(int argc, char **argv) {
    if (argc < 3 || atof(argv[2]) <= 0) {
        fprintf(stderr, "usage: %s TRUTH_FILE SECONDS [...]\n", argv[0]);
        exit(110);
    }
    return atof(argv[2]);
}
