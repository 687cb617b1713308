// A program as large as the largest in production: 150 MB of code with more than a million unwinding
// rows, and a chain of 40 calls all through it, built without frame pointers.
// Build it with -fno-toplevel-reorder: what lies between the links must stay there.
// Truth: CPU time of the process.
// Usage: big TRUTH_FILE SECONDS
// SECONDS are of CPU time.
#include "common.h"

// A function that nobody calls: ten unwinding rows, and some code behind them.
__asm__(".macro unused\n"
        "unused_\\@:\n"
        ".cfi_startproc\n"
        ".rept 5\n"
        "push %rbx\n"
        ".cfi_adjust_cfa_offset 8\n"
        ".endr\n"
        ".rept 5\n"
        "pop %rbx\n"
        ".cfi_adjust_cfa_offset -8\n"
        ".endr\n"
        "ret\n"
        ".fill 1300, 1, 0xcc\n"
        ".cfi_endproc\n"
        ".endm\n");
#define MANY_UNUSED __asm__(".text\n.rept 2900\nunused\n.endr\n");

static volatile uint64_t after_call;

MANY_UNUSED
FRAME uint64_t big_40(uint64_t x) {
    for (uint64_t i = 0; i < 20000000; i++) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        __asm__ volatile("" : "+r"(x));
    }
    return x;
}

#define LINK(NAME, NEXT)             \
    MANY_UNUSED                      \
    FRAME uint64_t NAME(uint64_t x) { \
        x = NEXT(x + 1);             \
        return x ^ after_call++;     \
    }
LINK(big_39, big_40)
LINK(big_38, big_39)
LINK(big_37, big_38)
LINK(big_36, big_37)
LINK(big_35, big_36)
LINK(big_34, big_35)
LINK(big_33, big_34)
LINK(big_32, big_33)
LINK(big_31, big_32)
LINK(big_30, big_31)
LINK(big_29, big_30)
LINK(big_28, big_29)
LINK(big_27, big_28)
LINK(big_26, big_27)
LINK(big_25, big_26)
LINK(big_24, big_25)
LINK(big_23, big_24)
LINK(big_22, big_23)
LINK(big_21, big_22)
LINK(big_20, big_21)
LINK(big_19, big_20)
LINK(big_18, big_19)
LINK(big_17, big_18)
LINK(big_16, big_17)
LINK(big_15, big_16)
LINK(big_14, big_15)
LINK(big_13, big_14)
LINK(big_12, big_13)
LINK(big_11, big_12)
LINK(big_10, big_11)
LINK(big_9, big_10)
LINK(big_8, big_9)
LINK(big_7, big_8)
LINK(big_6, big_7)
LINK(big_5, big_6)
LINK(big_4, big_5)
LINK(big_3, big_4)
LINK(big_2, big_3)
LINK(big_1, big_2)

int main(int argc, char **argv) {
    uint64_t until = (uint64_t)(seconds_argument(argc, argv) * 1e9);
    while (cpu_ns() < until) {
        after_call += big_1(after_call);
    }
    FILE *truth = truth_open(argv[1]);
    fprintf(truth, "{\"cpu_ns\":%llu}\n", (unsigned long long)cpu_ns());
    truth_close(truth, argv[1]);
    return 0;
}
