// Threads that each wait in one way: asleep, on a mutex, on a pipe, on a disk, for a CPU, for ever.
// Truth: wall time each measured around its own waits. Usage: offcpu TRUTH_FILE SECONDS
//
// A role is one thread; its name is the role's. All its waits are measured, so that the sum is what
// a profile of the thread's off-CPU time must show. Where the thread works while it waits, what it
// cannot have worked is measured, too: the truth lies between the two.
#include "common.h"
#include <fcntl.h>
#include <semaphore.h>

struct role {
    const char *comm, *reason;
    void (*run)(struct role *);
    uint64_t wait_ns, waits, short_waits_ns, started_ns;
    // What it must have waited at least; 0: as long as it says.
    uint64_t least_ns;
};

static uint64_t deadline_ns;
static int over(void) { return wall_ns() >= deadline_ns; }

// Time that the host took from all CPUs since boot: what it takes while a thread runs, the thread's own
// clock does not count. proc_stat(5), 8th value of the first line, in ticks.
static uint64_t stolen_ns(void) {
    unsigned long long ticks = 0;
    FILE *file = fopen("/proc/stat", "r");
    if (!file || fscanf(file, "cpu %*u %*u %*u %*u %*u %*u %*u %llu", &ticks) != 1) {
        perror("/proc/stat");
        exit(111);
    }
    fclose(file);
    return ticks * (1000000000u / (uint64_t)sysconf(_SC_CLK_TCK));
}

static void waited(struct role *role, uint64_t since_ns) {
    uint64_t ns = wall_ns() - since_ns;
    role->wait_ns += ns;
    role->short_waits_ns += ns < 1000000 ? ns : 0;
    role->waits++;
}

// --- asleep ---------------------------------------------------------------------------------
FRAME void run_sleeper(struct role *role) {
    while (!over()) {
        uint64_t before = wall_ns();
        sleep_ns(10000000);
        waited(role, before);
    }
}

enum { NAP_NS = 100000 };
FRAME void run_napper(struct role *role) {
    while (!over()) {
        uint64_t before = wall_ns();
        sleep_ns(NAP_NS);
        waited(role, before);
        role->least_ns += NAP_NS;
    }
}

// --- on a disk ------------------------------------------------------------------------------
static const char *data_path;
static uint64_t thread_cpu_ns(void) { return clock_ns(CLOCK_THREAD_CPUTIME_ID); }

FRAME void run_fsync(struct role *role) {
    int file = open(data_path, O_CREAT | O_TRUNC | O_WRONLY, 0600);
    char block[4096] = {0};
    while (!over()) {
        uint64_t before = wall_ns(), cpu_before = thread_cpu_ns();
        if (pwrite(file, block, sizeof block, (off_t)(role->waits % 256) * 4096) != sizeof block || fsync(file) != 0) {
            perror(data_path);
            exit(111);
        }
        uint64_t wall = wall_ns() - before, cpu = thread_cpu_ns() - cpu_before;
        waited(role, before);
        role->least_ns += wall - (cpu < wall ? cpu : wall);
    }
    close(file);
    unlink(data_path);
}

// --- on a mutex that another thread holds ---------------------------------------------------
// The holder holds it 8 ms and leaves it 2 ms. The waiter comes as soon as it is held, so that its
// waits are about 8 ms for the mutex and 2 ms for the next round.
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static sem_t held;

static void *holder(void *unused) {
    pthread_setname_np(pthread_self(), "oc-holder");
    while (!over()) {
        pthread_mutex_lock(&mutex);
        sem_post(&held);
        sleep_ns(8000000);
        pthread_mutex_unlock(&mutex);
        sleep_ns(2000000);
    }
    sem_post(&held);
    return unused;
}
FRAME void run_mutex(struct role *role) {
    while (!over()) {
        uint64_t before = wall_ns();
        sem_wait(&held);
        waited(role, before);
        before = wall_ns();
        pthread_mutex_lock(&mutex);
        waited(role, before);
        pthread_mutex_unlock(&mutex);
    }
}

// --- on a pipe that is written now and then -------------------------------------------------
static int pipe_ends[2];

static void *writer(void *unused) {
    pthread_setname_np(pthread_self(), "oc-writer");
    char byte = 'x';
    while (!over()) {
        sleep_ns(7000000);
        if (write(pipe_ends[1], &byte, 1) != 1) {
            break;
        }
    }
    close(pipe_ends[1]);
    return unused;
}
FRAME void run_pipe(struct role *role) {
    for (;;) {
        char byte;
        uint64_t before = wall_ns();
        ssize_t got = read(pipe_ends[0], &byte, 1);
        waited(role, before);
        if (got != 1) {
            return;
        }
    }
}

// --- asleep on one CPU, woken on another ----------------------------------------------------
// While the migrator sleeps, its waker moves it to the other CPU and then wakes it: once for each
// time it goes to sleep.
static sem_t going_to_sleep, wake;
static int cpus[2], cpu_count;
static pthread_t migrator;
static uint64_t migrations;
static volatile int migrating = 1;

static void *waker(void *unused) {
    pthread_setname_np(pthread_self(), "oc-waker");
    for (int round = 0; migrating; round++) {
        sem_wait(&going_to_sleep);
        if (!migrating) {
            // It has ended, and must not be asked for any more.
            break;
        }
        sleep_ns(6000000);
        cpu_set_t set;
        CPU_ZERO(&set);
        CPU_SET(cpus[round % cpu_count], &set);
        pthread_setaffinity_np(migrator, sizeof set, &set);
        sem_post(&wake);
    }
    return unused;
}
FRAME void run_migrator(struct role *role) {
    while (!over()) {
        int cpu_before = sched_getcpu();
        sem_post(&going_to_sleep);
        uint64_t before = wall_ns();
        sem_wait(&wake);
        waited(role, before);
        migrations += sched_getcpu() != cpu_before;
    }
    migrating = 0;
    sem_post(&going_to_sleep);
}

// --- blocked until the end ------------------------------------------------------------------
static int silent_ends[2];

FRAME void run_stuck(struct role *role) {
    char byte;
    role->started_ns = wall_ns();
    while (read(silent_ends[0], &byte, 1) != 1) {
    }
}

// --- for a CPU that another thread of the same kind wants as well -------------------------------
FRAME void run_spinner(struct role *role) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpus[0], &set);
    pthread_setaffinity_np(pthread_self(), sizeof set, &set);
    uint64_t before = wall_ns(), cpu_before = thread_cpu_ns();
    while (!over()) {
        SPIN(100000);
    }
    uint64_t wall = wall_ns() - before, cpu = thread_cpu_ns() - cpu_before;
    role->wait_ns = wall - (cpu < wall ? cpu : wall);
    role->waits = 1;
}

static struct role roles[] = {
    {.comm = "oc-sleeper", .reason = "sleep", .run = run_sleeper},
    {.comm = "oc-napper", .reason = "sleep", .run = run_napper},
    {.comm = "oc-mutex", .reason = "lock", .run = run_mutex},
    {.comm = "oc-pipe", .reason = "pipe", .run = run_pipe},
    {.comm = "oc-fsync", .reason = "io", .run = run_fsync},
    {.comm = "oc-migrator", .reason = "lock", .run = run_migrator},
    {.comm = "oc-spin-a", .reason = "preempted", .run = run_spinner},
    {.comm = "oc-spin-b", .reason = "preempted", .run = run_spinner},
    {.comm = "oc-stuck", .reason = "pipe", .run = run_stuck},
};
enum { ROLES = sizeof roles / sizeof *roles };

static void *run_role(void *argument) {
    struct role *role = argument;
    pthread_setname_np(pthread_self(), role->comm);
    role->run(role);
    return NULL;
}

static pthread_t start(void *(*body)(void *), void *argument) {
    pthread_t id;
    if (pthread_create(&id, NULL, body, argument) != 0) {
        perror("pthread_create");
        exit(111);
    }
    return id;
}

int main(int argc, char **argv) {
    uint64_t begin_ns = wall_ns(), stolen_before_ns = stolen_ns();
    deadline_ns = begin_ns + (uint64_t)(seconds_argument(argc, argv) * 1e9);
    char data[4096];
    snprintf(data, sizeof data, "%s.data", argv[1]);
    data_path = data;
    cpu_set_t allowed;
    sched_getaffinity(0, sizeof allowed, &allowed);
    for (int cpu = 0; cpu < CPU_SETSIZE && cpu_count < 2; cpu++) {
        if (CPU_ISSET(cpu, &allowed)) {
            cpus[cpu_count++] = cpu;
        }
    }
    sem_init(&held, 0, 0);
    sem_init(&going_to_sleep, 0, 0);
    sem_init(&wake, 0, 0);
    if (pipe(pipe_ends) != 0 || pipe(silent_ends) != 0) {
        perror("pipe");
        return 111;
    }
    pthread_t ids[ROLES], helpers[3];
    for (int i = 0; i < ROLES; i++) {
        ids[i] = start(run_role, &roles[i]);
        if (roles[i].run == run_migrator) {
            migrator = ids[i];
        }
    }
    helpers[0] = start(holder, NULL);
    helpers[1] = start(writer, NULL);
    helpers[2] = start(waker, NULL);
    for (int i = 0; i < ROLES; i++) {
        if (roles[i].run != run_stuck) {
            pthread_join(ids[i], NULL);
        }
    }
    for (int i = 0; i < 3; i++) {
        pthread_join(helpers[i], NULL);
    }

    uint64_t stolen = stolen_ns() - stolen_before_ns;
    FILE *truth = truth_open(argv[1]);
    fprintf(truth, "{\"roles\":[");
    for (int i = 0; i < ROLES; i++) {
        struct role *role = &roles[i];
        if (role->run == run_stuck) {
            // It never comes back to say how long it waited.
            role->wait_ns = wall_ns() - role->started_ns;
            role->waits = 1;
        }
        if (role->run == run_fsync || role->run == run_spinner) {
            // Any of the stolen time may have been this thread's, which is then work.
            uint64_t least = role->least_ns ? role->least_ns : role->wait_ns;
            role->least_ns = least > stolen ? least - stolen : 1;
        }
        fprintf(truth,
                "%s{\"comm\":\"%s\",\"reason\":\"%s\",\"wait_ns\":%llu,\"waits\":%llu,\"short_waits_ns\":%llu,"
                "\"least_ns\":%llu}",
                i ? "," : "", role->comm, role->reason, (unsigned long long)role->wait_ns,
                (unsigned long long)role->waits, (unsigned long long)role->short_waits_ns,
                (unsigned long long)(role->least_ns ? role->least_ns : role->wait_ns));
    }
    fprintf(truth, "],\"migrations\":%llu,\"cpus\":%d,\"wall_ns\":%llu}\n", (unsigned long long)migrations,
            cpu_count, (unsigned long long)(wall_ns() - begin_ns));
    truth_close(truth, argv[1]);
    // Ends the thread that is stuck, too.
    _exit(0);
}
