/* A stand-in for libnvidia-ml.so.1: answers nvidia-ml-py from a text file instead of a driver.
 *
 * The file named by NVML_STANDIN has one fact per line (sizes in MiB; a name runs to the end of the line):
 *   init STATUS                                      what nvmlInit returns (nvmlReturn_t)
 *   driver VERSION
 *   gpu UUID MEMORY MIG NAME                         MIG: 1 on, 0 off, -1 not supported by this GPU
 *   slice GPU PLACE UUID MEMORY GI CI NAME           PLACE in the GPU's table, GI and CI slice counts
 *   lost GPU                                         this GPU has fallen off the bus
 *   busy UUID PERCENT                                utilisation; a device without it does not support the question
 *   process UUID PID                                 a compute process
 *   xid GPU CODE                                     an event, told once to who waits for events
 * Signatures: NVIDIA Management Library reference (docs.nvidia.com/deploy/nvml-api).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OK = 0, UNINITIALIZED = 1, BAD_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7, TIMED_OUT = 10, GPU_IS_LOST = 15 };
enum { MAX_DEVICES = 64, PLACES = 7 };

struct device {
    char uuid[96], name[96];
    unsigned long long memory_mib;
    int mig, lost;
    unsigned gi, ci, percent, process_count, pids[PLACES];
    int tells_percent;
    struct device *slices[PLACES];
};
struct process { unsigned pid; unsigned long long memory; unsigned gi, ci; };
struct utilisation { unsigned gpu, memory; };
struct event { struct device *device; unsigned long long type, data; unsigned gi, ci; };
struct memory { unsigned long long total, free, used; };
struct attributes {
    unsigned multiprocessors, copy, decoder, encoder, jpeg, ofa, gi, ci;
    unsigned long long memory_mib;
};

unsigned long long standin_used_mib(void *device); /* sensors.c */

static struct device gpus[MAX_DEVICES], slices[MAX_DEVICES];
static struct event events[MAX_DEVICES];
static unsigned gpu_count, slice_count, event_count, events_told;
static int init_status, opened;
static char driver[81];

static struct device *find(const char *uuid) {
    unsigned i;
    for (i = 0; i < gpu_count; i++) if (!strcmp(gpus[i].uuid, uuid)) return &gpus[i];
    for (i = 0; i < slice_count; i++) if (!strcmp(slices[i].uuid, uuid)) return &slices[i];
    return NULL;
}

static void learn_activity(const char *line) {
    struct device *d;
    unsigned gpu, number;
    char uuid[96];
    if (sscanf(line, "busy %95s %u", uuid, &number) == 2 && (d = find(uuid))) {
        d->percent = number;
        d->tells_percent = 1;
    }
    if (sscanf(line, "process %95s %u", uuid, &number) == 2 && (d = find(uuid)) && d->process_count < PLACES)
        d->pids[d->process_count++] = number;
    if (sscanf(line, "xid %u %u", &gpu, &number) == 2 && gpu < gpu_count && event_count < MAX_DEVICES)
        events[event_count++] = (struct event){&gpus[gpu], 8, number, 0, 0};
}

static void learn(const char *line) {
    struct device *d;
    unsigned gpu, place;
    char uuid[96];
    learn_activity(line);
    if (sscanf(line, "init %d", &init_status) == 1 || sscanf(line, "driver %80s", driver) == 1) return;
    if (sscanf(line, "lost %u", &gpu) == 1 && gpu < MAX_DEVICES) gpus[gpu].lost = 1;
    if (strncmp(line, "gpu ", 4) == 0 && gpu_count < MAX_DEVICES) {
        d = &gpus[gpu_count++];
        sscanf(line, "gpu %95s %llu %d %95[^\n]", d->uuid, &d->memory_mib, &d->mig, d->name);
    }
    if (sscanf(line, "slice %u %u %95s", &gpu, &place, uuid) == 3 && gpu < gpu_count && place < PLACES) {
        d = gpus[gpu].slices[place] = &slices[slice_count++];
        sscanf(line, "slice %*u %*u %95s %llu %u %u %95[^\n]", d->uuid, &d->memory_mib, &d->gi, &d->ci, d->name);
    }
}

int nvmlInitWithFlags(unsigned flags) {
    char line[512];
    FILE *file;
    (void)flags;
    if (opened++) return init_status;
    file = fopen(getenv("NVML_STANDIN"), "r");
    if (!file) return UNINITIALIZED;
    while (fgets(line, sizeof line, file)) learn(line);
    fclose(file);
    return init_status;
}

int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }

int nvmlShutdown(void) {
    if (--opened) return OK; /* others have it open: the reference counts, as the real one does */
    memset(gpus, 0, sizeof gpus);
    memset(slices, 0, sizeof slices);
    gpu_count = slice_count = event_count = events_told = 0;
    return OK;
}

const char *nvmlErrorString(int status) {
    return status == 9 ? "Driver Not Loaded" : status == 18 ? "Driver/library version mismatch" : "Stand-in error";
}

static int say(char *buffer, unsigned length, const char *text) {
    snprintf(buffer, length, "%s", text);
    return OK;
}

int nvmlSystemGetDriverVersion(char *buffer, unsigned length) { return say(buffer, length, driver); }

int nvmlDeviceGetCount_v2(unsigned *count) {
    *count = gpu_count;
    return opened ? OK : UNINITIALIZED;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, struct device **device) {
    if (index >= gpu_count) return BAD_ARGUMENT;
    *device = &gpus[index];
    return gpus[index].lost ? GPU_IS_LOST : OK;
}

int nvmlDeviceGetUUID(struct device *d, char *buffer, unsigned length) { return say(buffer, length, d->uuid); }
int nvmlDeviceGetName(struct device *d, char *buffer, unsigned length) { return say(buffer, length, d->name); }

int nvmlDeviceGetMemoryInfo(struct device *d, struct memory *memory) {
    memory->total = d->memory_mib << 20;
    memory->used = standin_used_mib(d) << 20;
    memory->free = memory->total - memory->used;
    return d->memory_mib ? OK : NOT_SUPPORTED;
}

int nvmlDeviceGetMigMode(struct device *d, unsigned *current, unsigned *pending) {
    *current = *pending = d->mig == 1;
    return d->mig < 0 ? NOT_SUPPORTED : OK;
}

int nvmlDeviceGetMaxMigDeviceCount(struct device *d, unsigned *count) {
    (void)d;
    *count = PLACES;
    return OK;
}

int nvmlDeviceGetMigDeviceHandleByIndex(struct device *d, unsigned index, struct device **slice) {
    if (index >= PLACES) return BAD_ARGUMENT;
    *slice = d->slices[index];
    return *slice ? OK : NOT_FOUND;
}

int nvmlDeviceGetAttributes_v2(struct device *d, struct attributes *attributes) {
    memset(attributes, 0, sizeof *attributes);
    attributes->gi = d->gi;
    attributes->ci = d->ci;
    attributes->memory_mib = d->memory_mib;
    return d->gi ? OK : NOT_SUPPORTED;
}

int nvmlDeviceGetHandleByUUID(const char *uuid, struct device **device) {
    *device = find(uuid);
    if (!*device) return NOT_FOUND;
    return (*device)->lost ? GPU_IS_LOST : OK;
}

int standing_processes(struct device *d, unsigned *count, struct process *found) {
    unsigned i, room = *count;
    *count = d->process_count;
    if (room < d->process_count) return INSUFFICIENT_SIZE;
    for (i = 0; i < d->process_count; i++) found[i] = (struct process){d->pids[i], 1 << 20, 0, 0};
    return OK;
}

int nvmlDeviceGetDeviceHandleFromMigDeviceHandle(struct device *slice, struct device **parent) {
    unsigned gpu, place;
    for (gpu = 0; gpu < gpu_count; gpu++)
        for (place = 0; place < PLACES; place++)
            if (slice && gpus[gpu].slices[place] == slice) {
                *parent = &gpus[gpu];
                return OK;
            }
    return NOT_SUPPORTED;
}

int standing_utilisation(struct device *d, struct utilisation *u) {
    u->gpu = d->percent;
    u->memory = 0;
    return d->tells_percent ? OK : NOT_SUPPORTED;
}

int nvmlEventSetCreate(void **set) {
    *set = events;
    return OK;
}

int nvmlEventSetFree(void *set) {
    (void)set;
    return OK;
}

int nvmlDeviceRegisterEvents(struct device *d, unsigned long long types, void *set) {
    (void)types, (void)set;
    return d->lost ? GPU_IS_LOST : OK;
}

int nvmlEventSetWait_v2(void *set, struct event *seen, unsigned timeout) {
    (void)set, (void)timeout;
    if (events_told >= event_count) return TIMED_OUT;
    *seen = events[events_told++];
    return OK;
}
