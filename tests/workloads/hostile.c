// Spins in `hostile_spin`, whose debug information was written by hand to take down who reads it: a
// million levels of inlining. Argument: seconds.
#include <stdlib.h>
#include <time.h>

__attribute__((noinline)) unsigned hostile_spin(unsigned turns) {
    asm volatile(".file 1 \"hostile.c\"; .loc 1 7");
    unsigned sum = turns;
    while (turns--) {
        sum = sum * 31 + turns;
        asm volatile("" : "+r"(sum));
    }
    return sum;
}

__attribute__((noinline)) unsigned spin_until(time_t end) {
    unsigned sum = 0;
    while (time(NULL) < end) {
        sum += hostile_spin(1000000);
        asm volatile("" : "+r"(sum));
    }
    return sum;
}

int main(int count, char **arguments) {
    return spin_until(time(NULL) + (count > 1 ? atoi(arguments[1]) : 1)) == 1;
}

// Abbreviations: a unit and a function by address and size, the unit with line numbers (from `.loc`, or
// nobody would look further), and an inlined function without any
// attribute: one byte a level.
asm(".section .debug_abbrev,\"\"\n"
    ".Labbrev:\n"
    ".uleb128 1, 0x11; .byte 1; .uleb128 0x10, 0x17, 0x11, 1, 0x12, 7, 0, 0\n"
    ".uleb128 2, 0x2e; .byte 1; .uleb128 3, 8, 0x11, 1, 0x12, 7, 0, 0\n"
    ".uleb128 3, 0x1d; .byte 1; .uleb128 0, 0\n"
    ".byte 0\n"
    ".section .debug_line,\"\"\n"
    ".Lline:\n"
    ".section .debug_info,\"\"\n"
    ".long .Lend - .Lbegin\n"
    ".Lbegin:\n"
    ".2byte 4\n"
    ".long .Labbrev\n"
    ".byte 8\n"
    ".uleb128 1; .long .Lline; .quad hostile_spin, 4096\n"
    ".uleb128 2; .asciz \"hostile_spin\"; .quad hostile_spin, 32\n"
    ".rept 1000000\n"
    ".uleb128 3\n"
    ".endr\n"
    ".rept 1000002\n"
    ".byte 0\n"
    ".endr\n"
    ".Lend:\n"
    ".text\n");
