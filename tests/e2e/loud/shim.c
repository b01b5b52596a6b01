/* A disk that fails at the test's word: while the file named by TEST_IO_ERROR holds a number, writing and syncing the store's files gives that error. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static int fails(int file) {
    char name[64], path[4096];
    snprintf(name, sizeof name, "/proc/self/fd/%d", file);
    ssize_t length = readlink(name, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    if (!strstr(path, "wsmb.db") || strstr(path, ".ids")) return 0;
    const char *said = getenv("TEST_IO_ERROR");
    FILE *stream = said ? fopen(said, "r") : NULL;
    int number = 0;
    if (stream) {
        if (fscanf(stream, "%d", &number) != 1) number = 0;
        fclose(stream);
    }
    return number;
}

#define NEXT(name) static __typeof__(name) *next; if (!next) next = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)
#define FAIL(file) do { int number = fails(file); if (number) { errno = number; return -1; } } while (0)

ssize_t write(int file, const void *bytes, size_t count) { NEXT(write); FAIL(file); return next(file, bytes, count); }
ssize_t pwrite(int file, const void *bytes, size_t count, off_t at) { NEXT(pwrite); FAIL(file); return next(file, bytes, count, at); }
ssize_t pwrite64(int file, const void *bytes, size_t count, off64_t at) { NEXT(pwrite64); FAIL(file); return next(file, bytes, count, at); }
int fsync(int file) { NEXT(fsync); FAIL(file); return next(file); }
int fdatasync(int file) { NEXT(fdatasync); FAIL(file); return next(file); }
