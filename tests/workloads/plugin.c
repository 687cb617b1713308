// A library to be loaded at run time: a chain that calls back into its host.
#include <stdint.h>
#define FRAME __attribute__((noipa))

static volatile uint64_t after_call;

FRAME uint64_t plugin_3(uint64_t (*back)(uint64_t), uint64_t x) { return back(x + 1) ^ after_call++; }
FRAME uint64_t plugin_2(uint64_t (*back)(uint64_t), uint64_t x) { return plugin_3(back, x + 1) ^ after_call++; }
FRAME uint64_t plugin_1(uint64_t (*back)(uint64_t), uint64_t x) { return plugin_2(back, x + 1) ^ after_call++; }
