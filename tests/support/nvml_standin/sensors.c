/* The measuring half of the stand-in: what nvml.c's devices are busy with. Devices are told apart by UUID.
 *
 * More facts, one a line, in the same file (a fact that is absent is "not supported" by that device):
 *   cuda NUMBER                                      CUDA of the driver, 12080 for 12.8
 *   load UUID PERCENT MEMORY MILLIWATTS CELSIUS      MEMORY used, in MiB
 *   kind UUID MAJOR MINOR BRAND PERSISTENT           compute capability, nvmlBrandType_t, 0 or 1
 *   process UUID PID MEMORY                          MEMORY in MiB
 *   gpm UUID INSTANCE PERCENT                        of a slice: its GPU instance, and how busy GPM says that is
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OK = 0, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, INSUFFICIENT_SIZE = 7, MAX_FACTS = 64 };

struct load { char uuid[96]; unsigned percent, milliwatts, celsius; unsigned long long used_mib; };
struct kind { char uuid[96]; int major, minor, brand, persistent; };
struct process { char uuid[96]; unsigned pid; unsigned long long used_mib; };
struct slice_load { char uuid[96]; unsigned instance; double percent; };
struct sample { unsigned instance, number; };
struct metric { unsigned id; int result; double value; const char *names[3]; };
struct metrics { unsigned version, count; struct sample *before, *after; struct metric metrics[]; };
struct support { unsigned version, is_supported; };
struct process_info { unsigned pid; unsigned long long used; unsigned gpu_instance, compute_instance; };
struct utilisation { unsigned gpu, memory; };

static struct load loads[MAX_FACTS];
static struct kind kinds[MAX_FACTS];
static struct process processes[MAX_FACTS];
static struct slice_load slice_loads[MAX_FACTS];
static unsigned load_count, kind_count, process_count, slice_load_count, samples_taken, samples_held;
static int cuda, learned;

int nvmlDeviceGetUUID(void *device, char *buffer, unsigned length);

static void learn(void) {
    char line[512];
    FILE *file = learned++ ? NULL : fopen(getenv("NVML_STANDIN"), "r");
    if (!file) return;
    while (fgets(line, sizeof line, file)) {
        struct load *l = &loads[load_count];
        struct kind *k = &kinds[kind_count];
        struct process *p = &processes[process_count];
        struct slice_load *s = &slice_loads[slice_load_count];
        if (sscanf(line, "cuda %d", &cuda) == 1) continue;
        if (sscanf(line, "load %95s %u %llu %u %u", l->uuid, &l->percent, &l->used_mib, &l->milliwatts, &l->celsius) == 5
            && load_count < MAX_FACTS - 1) load_count++;
        else if (sscanf(line, "kind %95s %d %d %d %d", k->uuid, &k->major, &k->minor, &k->brand, &k->persistent) == 5
                 && kind_count < MAX_FACTS - 1) kind_count++;
        else if (sscanf(line, "process %95s %u %llu", p->uuid, &p->pid, &p->used_mib) == 3
                 && process_count < MAX_FACTS - 1) process_count++;
        else if (sscanf(line, "gpm %95s %u %lf", s->uuid, &s->instance, &s->percent) == 3
                 && slice_load_count < MAX_FACTS - 1) slice_load_count++;
    }
    fclose(file);
}

static const struct load *load_of(void *device) {
    char uuid[96];
    unsigned i;
    learn();
    nvmlDeviceGetUUID(device, uuid, sizeof uuid);
    for (i = 0; i < load_count; i++) if (!strcmp(loads[i].uuid, uuid)) return &loads[i];
    return NULL;
}

static const struct kind *kind_of(void *device) {
    char uuid[96];
    unsigned i;
    learn();
    nvmlDeviceGetUUID(device, uuid, sizeof uuid);
    for (i = 0; i < kind_count; i++) if (!strcmp(kinds[i].uuid, uuid)) return &kinds[i];
    return NULL;
}

unsigned long long standin_used_mib(void *device) {
    const struct load *load = load_of(device);
    return load ? load->used_mib : 0;
}

int nvmlSystemGetCudaDriverVersion_v2(int *version) {
    learn();
    *version = cuda;
    return OK;
}

/* What nvml.c knows of a device, where nothing was measured. */
int standing_utilisation(void *device, struct utilisation *rates);
int standing_processes(void *device, unsigned *count, struct process_info *infos);

int nvmlDeviceGetUtilizationRates(void *device, struct utilisation *rates) {
    const struct load *load = load_of(device);
    if (!load) return standing_utilisation(device, rates);
    rates->gpu = load->percent;
    rates->memory = 0;
    return OK;
}

int nvmlDeviceGetPowerUsage(void *device, unsigned *milliwatts) {
    const struct load *load = load_of(device);
    if (!load) return NOT_SUPPORTED;
    *milliwatts = load->milliwatts;
    return OK;
}

int nvmlDeviceGetTemperature(void *device, unsigned sensor, unsigned *celsius) {
    const struct load *load = load_of(device);
    if (!load || sensor) return NOT_SUPPORTED;
    *celsius = load->celsius;
    return OK;
}

int nvmlDeviceGetCudaComputeCapability(void *device, int *major, int *minor) {
    const struct kind *kind = kind_of(device);
    if (!kind) return NOT_SUPPORTED;
    *major = kind->major;
    *minor = kind->minor;
    return OK;
}

int nvmlDeviceGetBrand(void *device, unsigned *brand) {
    const struct kind *kind = kind_of(device);
    if (!kind) return NOT_SUPPORTED;
    *brand = (unsigned)kind->brand;
    return OK;
}

int nvmlDeviceGetPersistenceMode(void *device, unsigned *mode) {
    const struct kind *kind = kind_of(device);
    if (!kind) return NOT_SUPPORTED;
    *mode = (unsigned)kind->persistent;
    return OK;
}

int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned *count, struct process_info *infos) {
    char uuid[96];
    unsigned i, found = 0;
    learn();
    if (!process_count) return standing_processes(device, count, infos);
    nvmlDeviceGetUUID(device, uuid, sizeof uuid);
    for (i = 0; i < process_count; i++) {
        if (strcmp(processes[i].uuid, uuid)) continue;
        if (infos && found < *count) {
            infos[found].pid = processes[i].pid;
            infos[found].used = processes[i].used_mib << 20;
            infos[found].gpu_instance = infos[found].compute_instance = ~0u;
        }
        found++;
    }
    if (found > *count) {
        *count = found;
        return INSUFFICIENT_SIZE;
    }
    *count = found;
    return OK;
}

int nvmlDeviceGetGraphicsRunningProcesses_v3(void *device, unsigned *count, struct process_info *infos) {
    (void)device;
    (void)infos;
    *count = 0;
    return OK;
}

/* GPU performance monitoring: a card has it where a gpm fact is there, and no card before Hopper. */
int nvmlGpmQueryDeviceSupport(void *device, struct support *told) {
    const struct kind *kind = kind_of(device);
    if (told->version != 1) return INVALID_ARGUMENT;
    told->is_supported = slice_load_count && (!kind || kind->major >= 9);
    return OK;
}

int nvmlDeviceGetGpuInstanceId(void *device, unsigned *instance) {
    char uuid[96];
    unsigned i;
    learn();
    nvmlDeviceGetUUID(device, uuid, sizeof uuid);
    for (i = 0; i < slice_load_count; i++) {
        if (strcmp(slice_loads[i].uuid, uuid)) continue;
        *instance = slice_loads[i].instance;
        return OK;
    }
    return NOT_SUPPORTED;
}

int nvmlGpmSampleAlloc(struct sample **sample) {
    *sample = calloc(1, sizeof **sample);
    samples_held++;
    return OK;
}

int nvmlGpmSampleFree(struct sample *sample) {
    free(sample);
    samples_held--;
    return OK;
}

unsigned standin_samples_held(void) { return samples_held; }

int nvmlGpmMigSampleGet(void *device, unsigned instance, struct sample *sample) {
    (void)device;
    sample->instance = instance;
    sample->number = ++samples_taken;
    return OK;
}

/* The value belongs to two samples of one instance, the older first; of anything else there is none. */
int nvmlGpmMetricsGet(struct metrics *told) {
    unsigned i;
    if (told->version != 1 || told->count != 1 || told->metrics[0].id != 1) return INVALID_ARGUMENT;
    if (told->before->instance != told->after->instance || told->before->number >= told->after->number)
        return INVALID_ARGUMENT;
    for (i = 0; i < slice_load_count; i++)
        if (slice_loads[i].instance == told->before->instance) told->metrics[0].value = slice_loads[i].percent;
    told->metrics[0].result = OK;
    return OK;
}
