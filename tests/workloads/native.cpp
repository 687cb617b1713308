// A C++ chain: virtual calls through templates, an exception thrown at its end and caught in its
// middle, a destructor that works on the way, and helpers that are inlined into the leaf.
// Truth: CPU time of the process. Usage: native TRUTH_FILE CPU_SECONDS
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#define FRAME __attribute__((noipa))
#define INLINED static inline __attribute__((always_inline))

static volatile uint64_t after_call, spin_sink;

static double cpu_seconds() {
    timespec t{};
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

INLINED uint64_t inlined_inner(uint64_t rounds) {
    uint64_t x = spin_sink;
    for (uint64_t i = 0; i < rounds; i++) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        __asm__ volatile("" : "+r"(x));
    }
    return spin_sink = x;
}
INLINED uint64_t inlined_outer(uint64_t rounds) { return inlined_inner(rounds) + after_call; }

struct Thrown : std::runtime_error {
    uint64_t value;
    explicit Thrown(uint64_t value) : std::runtime_error("thrown through the chain"), value(value) {}
};

// Works while an exception passes by.
struct Guard {
    uint64_t rounds;
    FRAME explicit Guard(uint64_t rounds) : rounds(rounds) {}
    FRAME ~Guard() { after_call = after_call + inlined_outer(rounds); }
};

struct Steps;
struct Step {
    virtual ~Step() = default;
    virtual uint64_t go(const Steps &steps, uint64_t x) = 0;
};
struct Steps {
    std::vector<std::unique_ptr<Step>> all;
    const std::unique_ptr<Step> &operator[](size_t index) const { return all[index]; }
};

FRAME uint64_t leaf(uint64_t x) {
    after_call = after_call + inlined_outer(15000000);
    if (x % 2 == 0) {
        throw Thrown(x);
    }
    return x;
}

template <int N>
struct Stage : Step {
    FRAME uint64_t go(const Steps &steps, uint64_t x) override {
        if constexpr (N == 10) {
            return leaf(x) + after_call;
        } else if constexpr (N == 4) {
            try {
                return steps[N]->go(steps, x + 1) + after_call;
            } catch (const Thrown &thrown) {
                after_call = after_call + 1;
                return thrown.value;
            }
        } else if constexpr (N == 7) {
            Guard guard(4000000);
            std::string text(x % 40, 'x');
            return steps[N]->go(steps, x + text.size()) + after_call;
        } else {
            return steps[N]->go(steps, x + 1) + after_call;
        }
    }
};

template <int N>
static void fill(Steps &steps) {
    if constexpr (N <= 10) {
        steps.all.push_back(std::make_unique<Stage<N>>());
        fill<N + 1>(steps);
    }
}

int main(int argc, char **argv) {
    if (argc < 3) {
        return 110;
    }
    double until = std::atof(argv[2]);
    Steps steps;
    fill<1>(steps);
    for (uint64_t x = 0; cpu_seconds() < until; x++) {
        after_call = after_call + steps[0]->go(steps, x);
    }
    std::FILE *truth = std::fopen(argv[1], "w");
    if (truth == nullptr) {
        return 111;
    }
    std::fprintf(truth, "{\"cpu_ns\":%.0f}\n", cpu_seconds() * 1e9);
    return std::fclose(truth) == 0 ? 0 : 111;
}
