/* A disk that fails and loses unsynced data: preloaded into a program (LD_PRELOAD), it stands between the program and its files.
 *
 *   TEST_DISK_DIRECTORY   the library watches the files below this directory, except those that end in "-shm" or ".lock": their content need not survive
 *   TEST_DISK_ERROR       a file. While it holds a number other than 0, every write and every sync fails with this error; with the word "sync" behind it, only syncs fail; with the word "slow" behind it, each sync takes so many milliseconds
 *   TEST_DISK_RECORD      a file to which the library appends every change, for src/record.rs. A sync is then recorded and takes 1 ms; the real disk is not synced
 *
 * One lock protects each change together with its record, so the record has the order of the changes.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#define NEXT(name) static __typeof__(name) *next; if (!next) next = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

struct head {
    uint32_t kind, name_length;
    uint64_t file, at, length;
};

static int ends_with(const char *text, const char *end) {
    size_t length = strlen(text), other = strlen(end);
    return length >= other && !strcmp(text + length - other, end);
}

/* The name of a path below the directory; NULL if the path is not watched. */
static const char *name_of(const char *path) {
    const char *directory = getenv("TEST_DISK_DIRECTORY");
    size_t length = directory ? strlen(directory) : 0;
    if (!length || strncmp(path, directory, length)) return NULL;
    if (!path[length]) return "";
    if (path[length] != '/' || ends_with(path, "-shm") || ends_with(path, ".lock")) return NULL;
    return path + length + 1;
}

/* The name of an open file below the directory; NULL if the file is not watched. */
static const char *name_of_file(int file, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    if (length < 0) return NULL;
    path[length] = 0;
    return name_of(path);
}

/* The name of a path that the program passes to a call, relative to `directory`; `path` gets the absolute path. */
static const char *name_of_path(int directory, const char *given, char *path) {
    if (given[0] == '/') {
        snprintf(path, PATH_MAX, "%s", given);
    } else {
        char link[64], base[PATH_MAX];
        if (directory == AT_FDCWD) snprintf(link, sizeof link, "/proc/self/cwd");
        else snprintf(link, sizeof link, "/proc/self/fd/%d", directory);
        ssize_t length = readlink(link, base, sizeof base - 1);
        if (length < 0) return NULL;
        base[length] = 0;
        if (snprintf(path, PATH_MAX, "%s/%s", base, given) >= PATH_MAX) return NULL;
    }
    return name_of(path);
}

static int fails(int to_sync) {
    const char *path = getenv("TEST_DISK_ERROR");
    FILE *stream = path ? fopen(path, "r") : NULL;
    int number = 0;
    char word[8] = "";
    if (stream) {
        if (fscanf(stream, "%d %7s", &number, word) < 1) number = 0;
        fclose(stream);
    }
    if (!strcmp(word, "slow")) {
        if (to_sync) usleep((useconds_t)number * 1000);
        return 0;
    }
    return to_sync || !word[0] ? number : 0;
}

static int recorder(void) {
    static int file = -1;
    const char *path = getenv("TEST_DISK_RECORD");
    if (file < 0 && path) file = (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    return file;
}

static void record(char kind, uint64_t file, uint64_t at, const char *name, const void *bytes, size_t length) {
    if (recorder() < 0) return;
    struct head head = { (uint32_t)kind, name ? (uint32_t)strlen(name) : 0, file, at, length };
    struct iovec parts[] = { { &head, sizeof head }, { (void *)name, head.name_length }, { (void *)bytes, bytes ? length : 0 } };
    if (syscall(SYS_writev, recorder(), parts, 3) < 0) abort();
}

static uint64_t inode(int file) {
    struct stat found;
    return fstat(file, &found) ? 0 : found.st_ino;
}

/* The body of a call that writes; `start` is the position of the written bytes in the file. */
#define WRITE(call, start) \
    char path[PATH_MAX]; \
    if (!name_of_file(file, path)) return call; \
    pthread_mutex_lock(&lock); \
    int error = fails(0); \
    ssize_t written = -1; \
    if (error) errno = error; \
    else written = call; \
    int saved = errno; \
    if (written > 0) record('w', inode(file), (uint64_t)(start), NULL, bytes, (size_t)written); \
    pthread_mutex_unlock(&lock); \
    errno = saved; \
    return written

static off_t before(int file, ssize_t written) {
    if (fcntl(file, F_GETFL) & O_APPEND) return lseek(file, 0, SEEK_END) - written;
    return lseek(file, 0, SEEK_CUR) - written;
}

ssize_t write(int file, const void *bytes, size_t count) { NEXT(write); WRITE(next(file, bytes, count), before(file, written)); }
ssize_t pwrite(int file, const void *bytes, size_t count, off_t at) { NEXT(pwrite); WRITE(next(file, bytes, count, at), at); }
ssize_t pwrite64(int file, const void *bytes, size_t count, off64_t at) { NEXT(pwrite64); WRITE(next(file, bytes, count, at), at); }

#define RESIZE(call) \
    char path[PATH_MAX]; \
    if (!name_of_file(file, path)) return call; \
    pthread_mutex_lock(&lock); \
    int result = call, saved = errno; \
    if (!result) record('t', inode(file), (uint64_t)length, NULL, NULL, 0); \
    pthread_mutex_unlock(&lock); \
    errno = saved; \
    return result

int ftruncate(int file, off_t length) { NEXT(ftruncate); RESIZE(next(file, length)); }
int ftruncate64(int file, off64_t length) { NEXT(ftruncate64); RESIZE(next(file, length)); }

static int sync_file(int file, int (*next)(int)) {
    char path[PATH_MAX];
    const char *name = name_of_file(file, path);
    if (!name) return next(file);
    struct stat found;
    int is_directory = !fstat(file, &found) && S_ISDIR(found.st_mode);
    pthread_mutex_lock(&lock);
    int error = fails(1), result = -1;
    if (recorder() < 0) {
        if (!error) result = next(file);
    } else {
        usleep(1000);
        if (!error) result = 0;
        if (!is_directory) record(error ? 'f' : 's', inode(file), 0, NULL, NULL, 0);
        else if (!error) record('d', 0, 0, name, NULL, 0);
    }
    pthread_mutex_unlock(&lock);
    if (error) errno = error;
    return result;
}

int fsync(int file) { NEXT(fsync); return sync_file(file, next); }
int fdatasync(int file) { NEXT(fdatasync); return sync_file(file, next); }

static int open_file(int directory, const char *given, int flags, mode_t mode) {
    char path[PATH_MAX];
    const char *name = flags & O_CREAT ? name_of_path(directory, given, path) : NULL;
    if (!name && !(flags & O_TRUNC)) return (int)syscall(SYS_openat, directory, given, flags, mode);
    if (!name) name = name_of_path(directory, given, path);
    pthread_mutex_lock(&lock);
    struct stat found;
    int is_new = name && stat(path, &found);
    int file = (int)syscall(SYS_openat, directory, given, flags, mode), saved = errno;
    if (file >= 0 && name && is_new) record('c', inode(file), 0, name, NULL, 0);
    else if (file >= 0 && name && flags & O_TRUNC) record('t', inode(file), 0, NULL, NULL, 0);
    pthread_mutex_unlock(&lock);
    errno = saved;
    return file;
}

#define OPEN(directory) \
    va_list more; \
    va_start(more, flags); \
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0; \
    va_end(more); \
    return open_file(directory, path, flags, mode)

int open(const char *path, int flags, ...) { OPEN(AT_FDCWD); }
int open64(const char *path, int flags, ...) { OPEN(AT_FDCWD); }
int openat(int directory, const char *path, int flags, ...) { OPEN(directory); }
int openat64(int directory, const char *path, int flags, ...) { OPEN(directory); }

int unlink(const char *given) {
    NEXT(unlink);
    char path[PATH_MAX];
    const char *name = name_of_path(AT_FDCWD, given, path);
    if (!name) return next(given);
    pthread_mutex_lock(&lock);
    int result = next(given), saved = errno;
    if (!result) record('u', 0, 0, name, NULL, 0);
    pthread_mutex_unlock(&lock);
    errno = saved;
    return result;
}

int rename(const char *from, const char *to) {
    NEXT(rename);
    char path[PATH_MAX], other[PATH_MAX];
    const char *name = name_of_path(AT_FDCWD, from, path), *new_name = name_of_path(AT_FDCWD, to, other);
    if (!name || !new_name) return next(from, to);
    pthread_mutex_lock(&lock);
    int result = next(from, to), saved = errno;
    if (!result) record('r', 0, 0, name, new_name, strlen(new_name));
    pthread_mutex_unlock(&lock);
    errno = saved;
    return result;
}

int mkdir(const char *given, mode_t mode) {
    NEXT(mkdir);
    char path[PATH_MAX];
    const char *name = name_of_path(AT_FDCWD, given, path);
    if (!name) return next(given, mode);
    pthread_mutex_lock(&lock);
    int result = next(given, mode), saved = errno;
    if (!result) record('m', 0, 0, name, NULL, 0);
    pthread_mutex_unlock(&lock);
    errno = saved;
    return result;
}
