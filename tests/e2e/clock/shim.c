/* Replaces two answers of the kernel: whether a time service has set the clock, and how long the system was suspended.
   Preloaded before libfaketime, which replaces the wall clock. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/timex.h>
#include <time.h>

static long number_in(const char *variable) {
    const char *path = getenv(variable);
    FILE *file = path ? fopen(path, "r") : NULL;
    long number = 0;
    if (file) {
        if (fscanf(file, "%ld", &number) != 1) number = 0;
        fclose(file);
    }
    return number;
}

int adjtimex(struct timex *state) {
    int is_set = number_in("TEST_CLOCK_IS_SET") != 0;
    state->status = is_set ? STA_PLL : STA_UNSYNC;
    return is_set ? TIME_OK : TIME_ERROR;
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    static int (*next)(clockid_t, struct timespec *);
    if (!next) next = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int result = next(clock, time);
    if (clock == CLOCK_BOOTTIME) time->tv_sec += number_in("TEST_SUSPENDED");
    return result;
}
