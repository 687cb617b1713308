// Spins; then loads libraries and spins in each of them, once or again and again.
// Truth: CPU time of the process. Usage: host TRUTH_FILE CPU_SECONDS_EACH MODE LIBRARY...
// MODE `once`: alone for a while, then in each library as long. `again`: SECONDS in all, loading and
// unloading the libraries in turn, a few milliseconds each.
#include "common.h"
#include <dlfcn.h>

static volatile uint64_t after_call;
static uint64_t rounds;

#define BUSY(ROUNDS)                                          \
    do {                                                      \
        uint64_t x_ = spin_sink;                              \
        for (uint64_t i_ = 0, n_ = (ROUNDS); i_ < n_; i_++) { \
            x_ = x_ * 6364136223846793005u + 1442695040888963407u; \
            __asm__ volatile("" : "+r"(x_));                  \
        }                                                     \
        spin_sink = x_;                                       \
    } while (0)

FRAME uint64_t host_leaf(uint64_t x) {
    BUSY(rounds);
    return x ^ after_call++;
}
FRAME uint64_t host_alone(uint64_t x) {
    BUSY(rounds);
    return x ^ after_call++;
}

typedef uint64_t plugin_function(uint64_t (*)(uint64_t), uint64_t);

FRAME void in_library(const char *path, uint64_t until) {
    void *library = dlopen(path, RTLD_NOW);
    plugin_function *function = library ? (plugin_function *)dlsym(library, "plugin_1") : NULL;
    if (!function) {
        fprintf(stderr, "%s\n", dlerror());
        exit(111);
    }
    do {
        after_call += function(host_leaf, after_call);
    } while (cpu_ns() < until);
    dlclose(library);
}

int main(int argc, char **argv) {
    uint64_t span = (uint64_t)(seconds_argument(argc, argv) * 1e9);
    if (argc < 5) {
        return 110;
    }
    int again = strcmp(argv[3], "again") == 0;
    rounds = again ? 1000000 : 20000000;
    if (again) {
        for (int i = 0; cpu_ns() < span; i++) {
            in_library(argv[4 + i % (argc - 4)], 0);
        }
    } else {
        while (cpu_ns() < span) {
            after_call += host_alone(after_call);
        }
        for (int i = 4; i < argc; i++) {
            in_library(argv[i], cpu_ns() + span);
        }
    }
    FILE *truth = truth_open(argv[1]);
    fprintf(truth, "{\"cpu_ns\":%llu}\n", (unsigned long long)cpu_ns());
    truth_close(truth, argv[1]);
    return 0;
}
