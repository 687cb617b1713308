// A program that does real work in five functions: it reads text, hashes its words, sorts them, multiplies
// matrices and compresses. `hash_words` can be made slower: it hashes that much more text. Truth: CPU time
// of the process and rounds done. Usage: work TRUTH_FILE CPU_SECONDS [SLOWER_PERCENT]
#include "common.h"

#define TEXT 65536
#define WORDS 16384
#define SIDE 72

static char text[TEXT];
static uint32_t starts[WORDS], words;
static uint64_t hashes[WORDS];
static float a[SIDE][SIDE], b[SIDE][SIDE], c[SIDE][SIDE];
static unsigned char packed[2 * TEXT];
static volatile uint64_t sink;

// Words of one to twelve letters, as frequent as in a language: some often, most rarely.
FRAME void make_text(uint64_t seed) {
    uint64_t x = seed * 2654435761u + 1;
    for (uint32_t i = 0; i < TEXT; i++) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        uint32_t r = (uint32_t)(x >> 40);
        text[i] = r % 6 == 0 ? ' ' : (char)('a' + (r % 26) * ((r >> 8) % 26) / 26);
    }
}

FRAME void split_words(void) {
    words = 0;
    char before = ' ';
    for (uint32_t i = 0; i < TEXT && words < WORDS; i++) {
        if (before == ' ' && text[i] != ' ') {
            starts[words++] = i;
        }
        before = text[i];
    }
}

// FNV-1a, each word until the blank behind it; then as much again as it is to be slower.
FRAME void hash_words(uint64_t slower) {
    uint64_t more = words * slower / 100;
    for (uint64_t n = 0; n < words + more; n++) {
        uint32_t word = (uint32_t)(n % words);
        for (int pass = 0; pass < 6; pass++) {
            uint64_t hash = 14695981039346656037u + (uint64_t)pass;
            for (uint32_t i = starts[word]; i < TEXT && text[i] != ' '; i++) {
                hash = (hash ^ (unsigned char)text[i]) * 1099511628211u;
            }
            hashes[word] = hash;
        }
    }
}

// Heap sort: as long in the worst case as in the best.
static inline void sift(uint64_t *heap, uint32_t root, uint32_t end) {
    for (uint32_t child; (child = 2 * root + 1) < end; root = child) {
        child += child + 1 < end && heap[child] < heap[child + 1];
        if (heap[root] >= heap[child]) {
            return;
        }
        uint64_t swap = heap[root];
        heap[root] = heap[child];
        heap[child] = swap;
    }
}
FRAME void sort_hashes(void) {
    for (uint32_t root = words / 2; root-- > 0;) {
        sift(hashes, root, words);
    }
    for (uint32_t end = words; end-- > 1;) {
        uint64_t swap = hashes[0];
        hashes[0] = hashes[end];
        hashes[end] = swap;
        sift(hashes, 0, end);
    }
}

FRAME void multiply(void) {
    for (int i = 0; i < SIDE; i++) {
        for (int j = 0; j < SIDE; j++) {
            a[i][j] = (float)(hashes[(i * SIDE + j) % (words ? words : 1)] & 255);
            b[j][i] = a[i][j] + 1;
            c[i][j] = 0;
        }
    }
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < SIDE; i++) {
            for (int k = 0; k < SIDE; k++) {
                for (int j = 0; j < SIDE; j++) {
                    c[i][j] += a[i][k] * b[k][j];
                }
            }
        }
    }
    sink = (uint64_t)c[3][5];
}

// LZ77 with a table of the last place of three letters.
FRAME void compress_text(void) {
    static uint32_t last[4096];
    memset(last, 0, sizeof last);
    uint32_t out = 0;
    for (uint32_t i = 0; i + 3 < TEXT;) {
        uint32_t key = ((uint32_t)text[i] * 33 * 33 + (uint32_t)text[i + 1] * 33 + (uint32_t)text[i + 2]) & 4095;
        uint32_t from = last[key], length = 0;
        last[key] = i;
        while (from < i && length < 255 && i + length < TEXT && text[from + length] == text[i + length]) {
            length++;
        }
        if (length > 3) {
            packed[out++] = 255;
            packed[out++] = (unsigned char)length;
            packed[out++] = (unsigned char)(i - from);
            i += length;
        } else {
            packed[out++] = (unsigned char)text[i++];
        }
    }
    sink = out;
}

int main(int argc, char **argv) {
    uint64_t until = (uint64_t)(seconds_argument(argc, argv) * 1e9);
    uint64_t slower = argc > 3 ? strtoull(argv[3], NULL, 10) : 0;
    uint64_t rounds = 0;
    for (; cpu_ns() < until; rounds++) {
        make_text(rounds);
        split_words();
        hash_words(slower);
        sort_hashes();
        multiply();
        compress_text();
    }
    FILE *truth = truth_open(argv[1]);
    fprintf(truth, "{\"cpu_ns\":%llu,\"rounds\":%llu}\n", (unsigned long long)cpu_ns(), (unsigned long long)rounds);
    truth_close(truth, argv[1]);
    return 0;
}
