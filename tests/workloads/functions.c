// A busy program of five functions with known shares of the time: 40, 25, 15, 12 and 8 percent. The
// second can be made slower. Truth: CPU time of the process. Usage: functions TRUTH_FILE CPU_SECONDS
// [SLOWER_PERCENT]
#include "common.h"

static volatile uint64_t calls;

#define FUNCTION(NAME)            \
    FRAME void NAME(uint64_t n) { \
        SPIN(n);                  \
        calls++;                  \
    }
FUNCTION(parse)
FUNCTION(hash)
FUNCTION(sort)
FUNCTION(copy)
FUNCTION(emit)

FRAME void handle(uint64_t slower) {
    parse(400000);
    hash(250000 * (100 + slower) / 100);
    sort(150000);
    copy(120000);
    emit(80000);
}

int main(int argc, char **argv) {
    uint64_t until = (uint64_t)(seconds_argument(argc, argv) * 1e9);
    uint64_t slower = argc > 3 ? strtoull(argv[3], NULL, 10) : 0;
    while (cpu_ns() < until) {
        handle(slower);
    }
    FILE *truth = truth_open(argv[1]);
    fprintf(truth, "{\"cpu_ns\":%llu}\n", (unsigned long long)cpu_ns());
    truth_close(truth, argv[1]);
    return 0;
}
