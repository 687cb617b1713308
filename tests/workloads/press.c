// Threads that keep waiting for a disk, or for memory that is short.
// Truth: how often each read. Usage: press TRUTH_FILE SECONDS io|memory [CGROUP_PROCS_FILE]
//
// io: reads past the page cache, so that every one waits. memory: reads a mapped file of MEMORY_BYTES over and
// over, within a cgroup that has room for part of it; it goes into that cgroup by itself.
#include "common.h"
#include <fcntl.h>
#include <sys/mman.h>

// So many wait for a disk that some always do on each CPU: then the host is stalled nearly all the time.
enum { MOST_THREADS = 32, MEMORY_THREADS = 4, BLOCK = 4096, FILE_BYTES = 128 << 20 };

static uint64_t deadline_ns;
static int by_memory, data;
static char *mapped;
static volatile char read_sink;
static uint64_t reads[MOST_THREADS];

static void failed(const char *what) {
    perror(what);
    exit(111);
}

FRAME void wait_for_disk(void *block, uint64_t at) {
    if (pread(data, block, BLOCK, (off_t)at) != BLOCK) {
        failed("pread");
    }
}
FRAME void wait_for_memory(uint64_t at) { read_sink = mapped[at]; }

static void *reader(void *argument) {
    int index = (int)(intptr_t)argument;
    uint64_t random = (uint64_t)index * 2 + 1;
    void *block = aligned_alloc(BLOCK, BLOCK);
    if (!block) {
        failed("aligned_alloc");
    }
    for (; wall_ns() < deadline_ns; reads[index]++) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        uint64_t at = (random >> 20) % (FILE_BYTES / BLOCK) * BLOCK;
        if (by_memory) {
            wait_for_memory(at);
        } else {
            wait_for_disk(block, at);
        }
    }
    free(block);
    return NULL;
}

int main(int argc, char **argv) {
    double seconds = seconds_argument(argc, argv);
    by_memory = argc > 3 && strcmp(argv[3], "memory") == 0;
    if (argc > 4) {
        int procs = open(argv[4], O_WRONLY);
        if (procs < 0 || write(procs, "0", 1) != 1) {
            failed(argv[4]);
        }
        close(procs);
    }
    char path[4096];
    snprintf(path, sizeof path, "%s.data", argv[1]);
    int file = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0600);
    static char block[1 << 20];
    for (int i = 0; i < FILE_BYTES / (int)sizeof block; i++) {
        if (write(file, block, sizeof block) != sizeof block) {
            failed(path);
        }
    }
    if (fsync(file) != 0 || posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED) != 0) {
        failed(path);
    }
    close(file);
    data = open(path, O_RDONLY | (by_memory ? 0 : O_DIRECT));
    unlink(path);
    if (data < 0) {
        failed(path);
    }
    if (by_memory) {
        mapped = mmap(NULL, FILE_BYTES, PROT_READ, MAP_SHARED, data, 0);
        if (mapped == MAP_FAILED) {
            failed("mmap");
        }
    }
    deadline_ns = wall_ns() + (uint64_t)(seconds * 1e9);
    int threads = by_memory ? MEMORY_THREADS : MOST_THREADS;
    pthread_t ids[MOST_THREADS];
    for (int i = 0; i < threads; i++) {
        if (pthread_create(&ids[i], NULL, reader, (void *)(intptr_t)i) != 0) {
            failed("pthread_create");
        }
    }
    uint64_t all = 0;
    for (int i = 0; i < threads; i++) {
        pthread_join(ids[i], NULL);
        all += reads[i];
    }
    FILE *truth = truth_open(argv[1]);
    fprintf(truth, "{\"reads\":%llu}\n", (unsigned long long)all);
    truth_close(truth, argv[1]);
    return 0;
}
