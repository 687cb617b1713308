// Hand-written functions that keep the address of their frame where compilers never do, each described
// as an assembler's author would describe it, under a chain of two calls.
// Usage: assembly TRUTH_FILE SECONDS LEAF, SECONDS of CPU time.
#include "common.h"
#include <signal.h>
#include <sys/time.h>

// Loops as often as rdi says.
#define LOOP "1: dec %rdi\n jnz 1b\n"
#define FUNCTION(NAME, BODY)                                    \
    uint64_t NAME(uint64_t rounds);                             \
    __asm__(".text\n.type " #NAME ",@function\n" #NAME ":\n"    \
            ".cfi_startproc\n" BODY " ret\n.cfi_endproc\n"      \
            ".size " #NAME ",.-" #NAME "\n")
// The frame's address goes into a register, and the stack is aligned below it.
#define KEEP(REGISTER) \
    " mov %rsp, %" REGISTER "\n .cfi_def_cfa_register %" REGISTER "\n sub $256, %rsp\n and $-64, %rsp\n"
#define DROP(REGISTER) " mov %" REGISTER ", %rsp\n .cfi_def_cfa_register %rsp\n"

FUNCTION(in_r9, KEEP("r9") LOOP DROP("r9"));
FUNCTION(in_rsi, KEEP("rsi") LOOP DROP("rsi"));

// Calls on, to a function that leaves the register alone.
FUNCTION(keeps_rax, LOOP);
FUNCTION(in_rax, KEEP("rax") " call keeps_rax\n" DROP("rax"));

// Calls on, to a function that has the register for itself meanwhile. What would be the return address
// by what is in it is none.
FUNCTION(uses_r10, " push %r10\n .cfi_adjust_cfa_offset 8\n lea 64(%rsp), %r10\n movq $1, (%r10)\n" LOOP
                   " pop %r10\n .cfi_adjust_cfa_offset -8\n");
FUNCTION(in_r10, KEEP("r10") " call uses_r10\n" DROP("r10"));

// The frame's address lies in memory behind an array: *(rsp + 8 * rcx + 8) + 8.
FUNCTION(in_memory, KEEP("rax") " mov $16, %ecx\n mov %rax, 8(%rsp, %rcx, 8)\n"
                    " .cfi_escape 0x0f, 10, 0x77, 8, 0x72, 0, 0x38, 0x1e, 0x22, 0x06, 0x23, 8\n"
                    " xor %eax, %eax\n" LOOP
                    " mov 136(%rsp), %rsp\n .cfi_def_cfa %rsp, 8\n");

static volatile uint64_t after_call;
static uint64_t (*volatile leaf)(uint64_t);

FRAME void on_signal(int number) {
    SPIN(6000000);
    after_call += (uint64_t)number;
}
FRAME uint64_t outer_2(uint64_t x) { return leaf(x) ^ after_call++; }
FRAME uint64_t outer_1(uint64_t x) { return outer_2(x) ^ after_call++; }

int main(int argc, char **argv) {
    static const struct {
        const char *name;
        uint64_t (*leaf)(uint64_t);
        int signals;
    } leaves[] = {
        {"r9", in_r9, 0},         {"rsi", in_rsi, 0},       {"rax", in_rax, 0},
        {"r10", in_r10, 0},       {"memory", in_memory, 0}, {"signal", in_r9, 1},
        {"signal-rax", in_rax, 1}, {"signal-memory", in_memory, 1},
    };
    uint64_t until = (uint64_t)(seconds_argument(argc, argv) * 1e9);
    int signals = 0;
    for (size_t i = 0; argc > 3 && i < sizeof leaves / sizeof *leaves; i++) {
        if (strcmp(argv[3], leaves[i].name) == 0) {
            leaf = leaves[i].leaf;
            signals = leaves[i].signals;
        }
    }
    if (!leaf) {
        fprintf(stderr, "no leaf is called %s\n", argc > 3 ? argv[3] : "");
        return 110;
    }
    if (signals) {
        struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
        struct itimerval every = {.it_interval.tv_usec = 15000, .it_value.tv_usec = 15000};
        sigaction(SIGPROF, &action, NULL);
        setitimer(ITIMER_PROF, &every, NULL);
    }
    while (cpu_ns() < until) {
        after_call += outer_1(20000000);
    }
    FILE *truth = truth_open(argv[1]);
    fprintf(truth, "{\"cpu_ns\":%llu}\n", (unsigned long long)cpu_ns());
    truth_close(truth, argv[1]);
    return 0;
}
