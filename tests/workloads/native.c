// A chain of 40 calls through the C library's qsort, built without frame pointers, and on top of it
// one of several leaves: spinning, in system calls, recursing, asleep, interrupted by signals.
// Truth: CPU time of the process, and the time its leaf was off the CPU.
// Usage: native TRUTH_FILE SECONDS LEAF [PROGRAM ARGS...]
// SECONDS are of CPU time, and of wall time for leaves that sleep. With a PROGRAM: becomes it then.
#include "common.h"
#include <linux/futex.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>

static volatile uint64_t after_call;
static uint64_t (*volatile work)(uint64_t);

// As `SPIN`, but without asking for a frame pointer.
#define BUSY(ROUNDS)                                          \
    do {                                                      \
        uint64_t x_ = spin_sink;                              \
        for (uint64_t i_ = 0, n_ = (ROUNDS); i_ < n_; i_++) { \
            x_ = x_ * 6364136223846793005u + 1442695040888963407u; \
            __asm__ volatile("" : "+r"(x_));                  \
        }                                                     \
        spin_sink = x_;                                       \
    } while (0)

// --- leaves -----------------------------------------------------------------------------------
enum { LONG = 20000000 };

FRAME uint64_t spin_leaf(uint64_t x) {
    BUSY(LONG);
    return x;
}

// Other code each time a sample comes: no cache of the last walk serves.
#define LEAF(NAME)                   \
    FRAME uint64_t NAME(uint64_t x) { \
        BUSY(400);                   \
        return x ^ after_call++;     \
    }
LEAF(leaf_a) LEAF(leaf_b) LEAF(leaf_c) LEAF(leaf_d) LEAF(leaf_e) LEAF(leaf_f) LEAF(leaf_g) LEAF(leaf_h)
FRAME uint64_t alternate_leaf(uint64_t x) {
    for (int i = 0; i < 5000; i++) {
        x += leaf_a(x) + leaf_b(x) + leaf_c(x) + leaf_d(x) + leaf_e(x) + leaf_f(x) + leaf_g(x) + leaf_h(x);
    }
    return x;
}

FRAME uint64_t syscall_leaf(uint64_t x) {
    static char zeros[4096];
    FILE *zero = fopen("/dev/zero", "r");
    for (int i = 0; i < 20000; i++) {
        x += (uint64_t)syscall(SYS_getppid);
        x += (uint64_t)read(fileno(zero), zeros, i % sizeof zeros);
    }
    fclose(zero);
    return x;
}

static volatile int depth;
FRAME uint64_t recurse(uint64_t left) {
    volatile uint64_t pad[4] = {left};
    if (left > 1) {
        pad[0] += recurse(left - 1);
    } else {
        BUSY(LONG);
    }
    return pad[0] ^ after_call++;
}
FRAME uint64_t recursion_leaf(uint64_t x) { return recurse((uint64_t)depth) ^ x; }

// Stacks that never come again: which of three functions each of 40 frames is, is random.
FRAME uint64_t random_a(uint64_t left);
FRAME uint64_t random_b(uint64_t left);
FRAME uint64_t random_c(uint64_t left);
static uint64_t dice;
static uint64_t throw_dice(void) {
    dice ^= dice << 13;
    dice ^= dice >> 7;
    return dice ^= dice << 17;
}
#define RANDOM(NAME, BYTES)                                                       \
    FRAME uint64_t NAME(uint64_t left) {                                          \
        volatile char pad[BYTES];                                                 \
        pad[0] = (char)left;                                                      \
        if (left == 0) {                                                          \
            BUSY(300000);                                                         \
            return (uint64_t)pad[0];                                              \
        }                                                                         \
        uint64_t pick = throw_dice() % 3;                                         \
        uint64_t r = pick == 0 ? random_a(left - 1) : pick == 1 ? random_b(left - 1) : random_c(left - 1); \
        return r ^ (uint64_t)pad[0] ^ after_call++;                               \
    }
RANDOM(random_a, 16)
RANDOM(random_b, 88)
RANDOM(random_c, 200)
FRAME uint64_t random_leaf(uint64_t x) {
    for (int i = 0; i < 50; i++) {
        x ^= random_a(40);
    }
    return x;
}

// --- leaves that sleep ------------------------------------------------------------------------
static uint64_t off_ns;
enum { NAP_NS = 5000000 };

FRAME uint64_t nanosleep_leaf(uint64_t x) {
    uint64_t before = wall_ns();
    struct timespec nap = {.tv_nsec = NAP_NS};
    nanosleep(&nap, NULL);
    off_ns += wall_ns() - before;
    return x;
}
// Short sleeps one after another. The system call is made here: the C library's own function for it has
// no frame pointer, so a walk along frame pointers would miss who called it.
FRAME uint64_t nap_leaf(uint64_t x) {
    struct timespec nap = {.tv_nsec = 100000};
    uint64_t before = wall_ns();
    for (int i = 0; i < 50; i++) {
        long result = SYS_nanosleep;
        __asm__ volatile("syscall" : "+a"(result) : "D"(&nap), "S"(0L) : "rcx", "r11", "memory");
        x += (uint64_t)result;
    }
    off_ns += wall_ns() - before;
    return x;
}
FRAME uint64_t futex_leaf(uint64_t x) {
    static uint32_t word;
    uint64_t before = wall_ns();
    struct timespec nap = {.tv_nsec = NAP_NS};
    syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, &nap, NULL, 0);
    off_ns += wall_ns() - before;
    return x;
}
FRAME uint64_t read_leaf(uint64_t x) {
    static int timer = -1;
    if (timer < 0) {
        struct itimerspec every = {.it_interval.tv_nsec = NAP_NS, .it_value.tv_nsec = NAP_NS};
        timer = timerfd_create(CLOCK_MONOTONIC, 0);
        timerfd_settime(timer, 0, &every, NULL);
    }
    uint64_t before = wall_ns(), count = 0;
    if (read(timer, &count, sizeof count) != sizeof count) {
        exit(111);
    }
    off_ns += wall_ns() - before;
    return x + count;
}

// --- signals ----------------------------------------------------------------------------------
FRAME uint64_t handler_3(uint64_t x) {
    BUSY(6000000);
    return x ^ after_call++;
}
FRAME uint64_t handler_2(uint64_t x) { return handler_3(x + 1) ^ after_call++; }
FRAME uint64_t handler_1(uint64_t x) { return handler_2(x + 1) ^ after_call++; }
static void on_signal(int number) { after_call += handler_1((uint64_t)number); }

static void interrupt_often(int flags) {
    static char other_stack[1 << 16];
    stack_t stack = {.ss_sp = other_stack, .ss_size = sizeof other_stack};
    sigaltstack(&stack, NULL);
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART | flags};
    // By CPU time: by the wall clock, a busy machine would leave the handler alone with the CPU.
    sigaction(SIGPROF, &action, NULL);
    struct itimerval every = {.it_interval.tv_usec = 15000, .it_value.tv_usec = 15000};
    setitimer(ITIMER_PROF, &every, NULL);
}

// --- the chain --------------------------------------------------------------------------------
// Each kind of link makes the compiler describe its frame in another way.
#define PLAIN(NAME, NEXT) \
    FRAME uint64_t NAME(uint64_t x) { return NEXT(x + 1) ^ after_call++; }
// Larger than a stack window.
#define WIDE(NAME, NEXT)                        \
    FRAME uint64_t NAME(uint64_t x) {           \
        volatile char pad[1500];                \
        pad[x % sizeof pad] = (char)x;          \
        return NEXT(x + 1) ^ (uint64_t)pad[x % sizeof pad] ^ after_call++; \
    }
// Every callee-saved register is in use, the frame pointer's as well.
#define REGS(NAME, NEXT)                                                    \
    FRAME uint64_t NAME(uint64_t x) {                                       \
        uint64_t a = after_call + x, b = after_call * x, c = after_call - x, d = after_call ^ x; \
        uint64_t e = after_call | x, f = after_call & x, g = ~after_call;   \
        uint64_t r = NEXT(x + 1);                                           \
        return r ^ a ^ b * 3 ^ c * 5 ^ d * 7 ^ e * 11 ^ f * 13 ^ g ^ after_call++; \
    }
// The stack pointer moves by what is known at run time only.
#define VLA(NAME, NEXT)                                    \
    FRAME uint64_t NAME(uint64_t x) {                      \
        volatile char pad[x % 64 + 1];                     \
        pad[0] = (char)x;                                  \
        return NEXT(x + 1) ^ (uint64_t)pad[0] ^ after_call++; \
    }
// A path that leaves before the frame is set up.
#define EARLY(NAME, NEXT)                     \
    FRAME uint64_t NAME(uint64_t x) {         \
        if (x == UINT64_MAX) {                \
            return after_call;                \
        }                                     \
        uint64_t before = after_call;         \
        return NEXT(x + 1) ^ before ^ after_call++; \
    }
FRAME uint64_t deep_40(uint64_t x) { return work(x) ^ after_call++; }
EARLY(deep_39, deep_40)
VLA(deep_38, deep_39)
REGS(deep_37, deep_38)
WIDE(deep_36, deep_37)
PLAIN(deep_35, deep_36)
EARLY(deep_34, deep_35)
VLA(deep_33, deep_34)
REGS(deep_32, deep_33)
WIDE(deep_31, deep_32)
PLAIN(deep_30, deep_31)
EARLY(deep_29, deep_30)
VLA(deep_28, deep_29)
REGS(deep_27, deep_28)
WIDE(deep_26, deep_27)
PLAIN(deep_25, deep_26)
EARLY(deep_24, deep_25)
VLA(deep_23, deep_24)
REGS(deep_22, deep_23)
WIDE(deep_21, deep_22)
static int compare(const void *left, const void *right) {
    uint64_t x = *(const uint64_t *)left + *(const uint64_t *)right;
    after_call += deep_21(x);
    return 0;
}
#ifdef WITHOUT_QSORT
FRAME void compare_now(const uint64_t *pair) { after_call += (uint64_t)compare(pair, pair + 1); }
#endif
FRAME uint64_t deep_20(uint64_t x) {
    // Two elements: one comparison, whatever way of sorting the C library chooses.
    uint64_t pair[2] = {x, x + 1};
    // The C library has no frame pointers: a bench that walks along them stays in this file.
#ifdef WITHOUT_QSORT
    compare_now(pair);
#else
    qsort(pair, 2, sizeof *pair, compare);
#endif
    return pair[0] ^ after_call++;
}
EARLY(deep_19, deep_20)
VLA(deep_18, deep_19)
REGS(deep_17, deep_18)
WIDE(deep_16, deep_17)
PLAIN(deep_15, deep_16)
EARLY(deep_14, deep_15)
VLA(deep_13, deep_14)
REGS(deep_12, deep_13)
WIDE(deep_11, deep_12)
PLAIN(deep_10, deep_11)
EARLY(deep_9, deep_10)
VLA(deep_8, deep_9)
REGS(deep_7, deep_8)
WIDE(deep_6, deep_7)
PLAIN(deep_5, deep_6)
EARLY(deep_4, deep_5)
VLA(deep_3, deep_4)
REGS(deep_2, deep_3)
WIDE(deep_1, deep_2)

// --- what the leaf is -------------------------------------------------------------------------
static int choose(const char *leaf) {
    static const struct {
        const char *name;
        uint64_t (*work)(uint64_t);
        int depth, sleeps, signals;
    } leaves[] = {
        {"spin", spin_leaf, 0, 0, -1},
        {"alternate", alternate_leaf, 0, 0, -1},
        {"syscall", syscall_leaf, 0, 0, -1},
        {"recursion", recursion_leaf, 400, 0, -1},
        {"too-deep", recursion_leaf, 600, 0, -1},
        {"random", random_leaf, 0, 0, -1},
        {"signal", spin_leaf, 0, 0, 0},
        {"altstack", spin_leaf, 0, 0, SA_ONSTACK},
        {"nanosleep", nanosleep_leaf, 0, 1, -1},
        {"nap", nap_leaf, 0, 1, -1},
        {"futex", futex_leaf, 0, 1, -1},
        {"read", read_leaf, 0, 1, -1},
    };
    for (size_t i = 0; i < sizeof leaves / sizeof *leaves; i++) {
        if (strcmp(leaf, leaves[i].name) == 0) {
            work = leaves[i].work;
            depth = leaves[i].depth;
            if (leaves[i].signals >= 0) {
                interrupt_often(leaves[i].signals);
            }
            return leaves[i].sleeps;
        }
    }
    fprintf(stderr, "no leaf is called %s\n", leaf);
    exit(110);
}

int main(int argc, char **argv) {
    uint64_t span = (uint64_t)(seconds_argument(argc, argv) * 1e9);
    dice = wall_ns() | 1;
    int sleeps = choose(argc > 3 ? argv[3] : "spin");
    uint64_t until = span + (sleeps ? wall_ns() : cpu_ns());
    while ((sleeps ? wall_ns() : cpu_ns()) < until) {
        after_call += deep_1(after_call);
    }
    FILE *truth = truth_open(argv[1]);
    fprintf(truth, "{\"cpu_ns\":%llu,\"off_ns\":%llu}\n", (unsigned long long)cpu_ns(), (unsigned long long)off_ns);
    truth_close(truth, argv[1]);
    if (argc > 4) {
        execv(argv[4], argv + 4);
        perror(argv[4]);
        return 111;
    }
    return 0;
}
