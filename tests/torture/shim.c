/* A layer under libc, for `tests/torture`: loaded by LD_PRELOAD, it counts the calls that touch
   files below one folder, and on request lets one of them fail, come back short, lie, or end the
   process; and it writes down what a medium would be told.

   Nothing happens until `torture_arm` is called. Calls on other files go straight through, so that
   Python can import and the hub can answer. One lock is held for the length of every watched call:
   the log has the order in which the kernel saw them.

       cc -O1 -shared -fPIC shim.c -o shim.so -ldl -lpthread
*/
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

/* In the order of `FUNCTIONS` in shim.py. */
enum function {
    OPEN, PREAD, READ, PWRITE, WRITE, FSYNC, FDATASYNC, FTRUNCATE, FALLOCATE, SYNC_RANGE,
    RENAME, RENAMEAT2, MKDIR, UNLINK, OTHER, FUNCTIONS
};
/* In the order of `KINDS` there. */
enum kind { NOTHING, FAIL, KILL_BEFORE, KILL_AFTER, SHORT, ZERO, LIE, DELAYED };
/* What the log holds, in the order of `RECORDS` there. */
enum record {
    R_CREATE, R_WRITE, R_TRUNCATE, R_ALLOCATE, R_SYNC, R_RENAME, R_EXCHANGE, R_MKDIR, R_UNLINK,
    R_RMDIR, R_SYMLINK, R_LINK, R_CHMOD
};

struct head {
    uint32_t record, name, other;
    uint32_t mode;
    int64_t offset, length;
};

static pthread_mutex_t lock = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
static volatile int armed;
static char root[PATH_MAX];
static size_t root_length;
static uint64_t *counts; /* by function, then of all; shared with who watches */
static int log_fd = -1;
static int chosen, chosen_kind, chosen_errno; /* a function, or FUNCTIONS for any */
static uint64_t first, times;
static int64_t clock_shift;
static struct { dev_t device; ino_t inode; off_t offset; size_t length; } lost;

#define REAL(name) ((__typeof__(&name)) real(#name))

static void *real(const char *name) {
    void *found = dlsym(RTLD_NEXT, name);
    if (!found) abort();
    return found;
}

/* Watch files below `folder`; let calls `nth`, and `many` in all, of `function` go wrong. */
void torture_arm(const char *folder, uint64_t *shared, int log, int function, uint64_t nth,
                 uint64_t many, int kind, int error) {
    snprintf(root, sizeof root, "%s/", folder);
    root_length = strlen(root);
    counts = shared;
    log_fd = log;
    chosen = function, first = nth, times = many, chosen_kind = kind, chosen_errno = error;
    armed = 1;
}

/* Let the clock of the wall be so many seconds ahead. */
void torture_shift_clock(int64_t seconds) { clock_shift = seconds; }

static int inside(const char *path) {
    return strncmp(path, root, root_length) == 0 || strncmp(path, root, root_length - 1) == 0;
}

/* The absolute path of a name in a directory; 1 if it is below the folder that is watched. */
static int place_at(int directory, const char *name, char *out) {
    char base[PATH_MAX] = "";
    if (!armed || !name) return 0;
    if (name[0] != '/') {
        if (directory == AT_FDCWD) {
            if (!getcwd(base, sizeof base)) return 0;
        } else {
            char link[64];
            snprintf(link, sizeof link, "/proc/self/fd/%d", directory);
            ssize_t n = readlink(link, base, sizeof base - 1);
            if (n < 0) return 0;
            base[n] = 0;
        }
        strncat(base, "/", sizeof base - strlen(base) - 1);
    }
    if (snprintf(out, PATH_MAX, "%s%s", base, name) >= PATH_MAX) return 0;
    return inside(out);
}

static int place_of(int fd, char *out) {
    char link[64];
    if (!armed) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, out, PATH_MAX - 1);
    if (n < 0) return 0;
    out[n] = 0;
    return inside(out);
}

static void die(void) { kill(getpid(), SIGKILL); pause(); }

/* Count a call, with the lock held; what is to happen to it. */
static int turn(enum function function) {
    uint64_t number = ++counts[function], any = ++counts[FUNCTIONS];
    if (chosen == FUNCTIONS) number = any;
    else if (chosen != (int) function) return NOTHING;
    if (number < first || number - first >= times) return NOTHING;
    if (chosen_kind == KILL_BEFORE) die();
    return chosen_kind;
}

static void enter(void) { pthread_mutex_lock(&lock); }

/* Let go of the lock after a call, or of the process if that is what was asked for. */
static void leave(int happens) {
    int kept = errno;
    if (happens == KILL_AFTER) die();
    pthread_mutex_unlock(&lock);
    errno = kept;
}

static void put(const void *bytes, size_t length) {
    const char *at = bytes;
    while (length) {
        ssize_t n = REAL(write)(log_fd, at, length);
        if (n <= 0) abort();
        at += n, length -= n;
    }
}

static void note(enum record record, const char *name, const char *other, mode_t mode,
                 int64_t offset, int64_t length, const void *bytes) {
    if (log_fd < 0) return;
    int kept = errno;
    struct head head = {record, strlen(name), strlen(other), mode, offset, length};
    put(&head, sizeof head);
    put(name, head.name);
    put(other, head.other);
    if (bytes) put(bytes, length);
    errno = kept;
}

/* --- data ------------------------------------------------------------------------------------ */

#define FAILING(happens) \
    if (happens == FAIL) { leave(NOTHING); errno = chosen_errno; return -1; }

static size_t shortened(int happens, size_t length) {
    return happens == SHORT ? length / 2 + (length == 1) : length;
}

static void remember_lost(int fd, off_t offset, size_t length) {
    struct stat state;
    if (fstat(fd, &state) == 0) {
        lost.device = state.st_dev, lost.inode = state.st_ino;
        lost.offset = offset, lost.length = length;
    }
}

/* Whether what was written to a file before is lost, which its medium tells now and never again. */
static int tells_loss(int fd) {
    struct stat state;
    if (!lost.length || fstat(fd, &state) != 0) return 0;
    if (state.st_dev != lost.device || state.st_ino != lost.inode) return 0;
    char *zeros = calloc(1, lost.length);
    ssize_t n = REAL(pwrite)(fd, zeros, lost.length, lost.offset);
    free(zeros);
    lost.length = 0;
    return n >= 0;
}

static ssize_t write_at(enum function function, int fd, const void *bytes, size_t length,
                        off_t offset) {
    char path[PATH_MAX];
    int placed = function == PWRITE;
    if (!place_of(fd, path))
        return placed ? REAL(pwrite64)(fd, bytes, length, offset) : REAL(write)(fd, bytes, length);
    enter();
    int happens = turn(function);
    FAILING(happens)
    if (happens == ZERO) { leave(NOTHING); return 0; }
    length = shortened(happens, length);
    if (!placed) offset = fcntl(fd, F_GETFL) & O_APPEND ? lseek(fd, 0, SEEK_END) : lseek(fd, 0, SEEK_CUR);
    ssize_t n = placed ? REAL(pwrite64)(fd, bytes, length, offset) : REAL(write)(fd, bytes, length);
    if (n > 0) note(R_WRITE, path, "", 0, offset, n, bytes);
    if (n > 0 && happens == DELAYED) remember_lost(fd, offset, n);
    leave(happens);
    return n;
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off_t offset) {
    return write_at(PWRITE, fd, bytes, length, offset);
}
ssize_t pwrite(int fd, const void *bytes, size_t length, off_t offset) {
    return write_at(PWRITE, fd, bytes, length, offset);
}
ssize_t write(int fd, const void *bytes, size_t length) {
    return write_at(WRITE, fd, bytes, length, 0);
}

static ssize_t read_at(enum function function, int fd, void *bytes, size_t length, off_t offset) {
    char path[PATH_MAX];
    int placed = function == PREAD, happens = NOTHING, watched = place_of(fd, path);
    if (watched) {
        enter();
        happens = turn(function);
        FAILING(happens)
        if (happens == ZERO) { leave(NOTHING); return 0; }
        length = shortened(happens, length);
    }
    ssize_t n = placed ? REAL(pread64)(fd, bytes, length, offset) : REAL(read)(fd, bytes, length);
    if (watched) leave(happens);
    return n;
}

ssize_t pread64(int fd, void *bytes, size_t length, off_t offset) {
    return read_at(PREAD, fd, bytes, length, offset);
}
ssize_t pread(int fd, void *bytes, size_t length, off_t offset) {
    return read_at(PREAD, fd, bytes, length, offset);
}
ssize_t read(int fd, void *bytes, size_t length) { return read_at(READ, fd, bytes, length, 0); }

ssize_t preadv64v2(int fd, const struct iovec *parts, int count, off_t offset, int flags) {
    if (count == 1 && flags == 0) return pread64(fd, parts->iov_base, parts->iov_len, offset);
    return REAL(preadv64v2)(fd, parts, count, offset, flags);
}
ssize_t preadv64(int fd, const struct iovec *parts, int count, off_t offset) {
    return preadv64v2(fd, parts, count, offset, 0);
}
ssize_t preadv2(int fd, const struct iovec *parts, int count, off_t offset, int flags) {
    return preadv64v2(fd, parts, count, offset, flags);
}
ssize_t preadv(int fd, const struct iovec *parts, int count, off_t offset) {
    return preadv64v2(fd, parts, count, offset, 0);
}

/* What one call copies from file to file inside the kernel, the log reads back. */
static void note_copied(int fd, const char *path, ssize_t n) {
    if (n <= 0 || log_fd < 0) return;
    off_t end = lseek(fd, 0, SEEK_CUR);
    char *bytes = malloc(n);
    if (!bytes || REAL(pread64)(fd, bytes, n, end - n) != n) abort();
    note(R_WRITE, path, "", 0, end - n, n, bytes);
    free(bytes);
}

ssize_t sendfile64(int out, int in, off_t *offset, size_t length);
ssize_t sendfile(int out, int in, off_t *offset, size_t length);
ssize_t sendfile64(int out, int in, off_t *offset, size_t length) {
    char path[PATH_MAX];
    if (!place_of(out, path)) return REAL(sendfile64)(out, in, offset, length);
    enter();
    int happens = turn(WRITE);
    FAILING(happens)
    ssize_t n = REAL(sendfile64)(out, in, offset, shortened(happens, length));
    note_copied(out, path, n);
    leave(happens);
    return n;
}
ssize_t sendfile(int out, int in, off_t *offset, size_t length) {
    return sendfile64(out, in, offset, length);
}

static int sync_fd(enum function function, int fd) {
    char path[PATH_MAX];
    if (!place_of(fd, path)) return function == FSYNC ? REAL(fsync)(fd) : REAL(fdatasync)(fd);
    enter();
    int happens = turn(function);
    FAILING(happens)
    if (happens == LIE) { leave(NOTHING); return 0; }
    if (tells_loss(fd)) { leave(NOTHING); errno = EIO; return -1; }
    /* Whoever watches cuts no power: the medium need not be waited for. */
    note(R_SYNC, path, "", 0, 0, 0, NULL);
    leave(happens);
    return 0;
}

int fsync(int fd) { return sync_fd(FSYNC, fd); }
int fdatasync(int fd) { return sync_fd(FDATASYNC, fd); }

int sync_file_range(int fd, off_t offset, off_t length, unsigned flags) {
    char path[PATH_MAX];
    if (!place_of(fd, path)) return REAL(sync_file_range)(fd, offset, length, flags);
    enter();
    int happens = turn(SYNC_RANGE);
    FAILING(happens)
    if (flags & 5 && tells_loss(fd)) { leave(NOTHING); errno = EIO; return -1; }
    leave(happens); /* it orders nothing: the metadata may be missing all the same */
    return 0;
}

static int truncate_fd(int fd, off_t length) {
    char path[PATH_MAX];
    if (!place_of(fd, path)) return REAL(ftruncate64)(fd, length);
    enter();
    int happens = turn(FTRUNCATE);
    FAILING(happens)
    int result = REAL(ftruncate64)(fd, length);
    if (result == 0) note(R_TRUNCATE, path, "", 0, 0, length, NULL);
    leave(happens);
    return result;
}

int ftruncate64(int fd, off_t length) { return truncate_fd(fd, length); }
int ftruncate(int fd, off_t length) { return truncate_fd(fd, length); }

/* This one returns its error instead of setting errno. */
static int allocate(int fd, off_t offset, off_t length) {
    char path[PATH_MAX];
    if (!place_of(fd, path)) return REAL(posix_fallocate64)(fd, offset, length);
    enter();
    int happens = turn(FALLOCATE);
    if (happens == FAIL) { leave(NOTHING); return chosen_errno; }
    int result = REAL(posix_fallocate64)(fd, offset, length);
    if (result == 0) note(R_ALLOCATE, path, "", 0, 0, offset + length, NULL);
    leave(happens);
    return result;
}

int posix_fallocate64(int fd, off_t offset, off_t length) { return allocate(fd, offset, length); }
int posix_fallocate(int fd, off_t offset, off_t length) { return allocate(fd, offset, length); }

/* --- names ----------------------------------------------------------------------------------- */

static int open_at(int directory, const char *name, int flags, mode_t mode) {
    char path[PATH_MAX];
    if (!place_at(directory, name, path)) return REAL(openat64)(directory, name, flags, mode);
    enter();
    int happens = turn(OPEN);
    FAILING(happens)
    struct stat before;
    int existed = fstatat(directory, name, &before, 0) == 0;
    int fd = REAL(openat64)(directory, name, flags, mode);
    struct stat state;
    if (fd >= 0 && fstat(fd, &state) == 0) {
        if (!existed && flags & O_CREAT) note(R_CREATE, path, "", state.st_mode & 07777, 0, 0, NULL);
        else if (flags & O_TRUNC) note(R_TRUNCATE, path, "", 0, 0, 0, NULL);
    }
    leave(happens);
    return fd;
}

#define MODE(flags, mode) \
    mode_t mode = 0; \
    if (flags & (O_CREAT | O_TMPFILE)) { \
        va_list more; \
        va_start(more, flags); \
        mode = va_arg(more, mode_t); \
        va_end(more); \
    }

int open64(const char *name, int flags, ...) {
    MODE(flags, mode)
    return open_at(AT_FDCWD, name, flags, mode);
}
int open(const char *name, int flags, ...) {
    MODE(flags, mode)
    return open_at(AT_FDCWD, name, flags, mode);
}
int openat64(int directory, const char *name, int flags, ...) {
    MODE(flags, mode)
    return open_at(directory, name, flags, mode);
}
int openat(int directory, const char *name, int flags, ...) {
    MODE(flags, mode)
    return open_at(directory, name, flags, mode);
}

/* A call with one name: `function` is counted, `call` is made, `record` is written. */
#define ONE_NAME(function, directory, name, call, record, mode) \
    char path[PATH_MAX]; \
    if (!place_at(directory, name, path)) return call; \
    enter(); \
    int happens = turn(function); \
    FAILING(happens) \
    int result = call; \
    if (result == 0) note(record, path, "", mode, 0, 0, NULL); \
    leave(happens); \
    return result;

static mode_t mode_of(const char *path) {
    struct stat state;
    return stat(path, &state) == 0 ? state.st_mode & 07777 : 0;
}

int mkdirat(int directory, const char *name, mode_t mode) {
    ONE_NAME(MKDIR, directory, name, REAL(mkdirat)(directory, name, mode), R_MKDIR, mode_of(path))
}
int mkdir(const char *name, mode_t mode) { return mkdirat(AT_FDCWD, name, mode); }
int unlinkat(int directory, const char *name, int flags) {
    ONE_NAME(UNLINK, directory, name, REAL(unlinkat)(directory, name, flags),
             flags & AT_REMOVEDIR ? R_RMDIR : R_UNLINK, 0)
}
int unlink(const char *name) { return unlinkat(AT_FDCWD, name, 0); }
int rmdir(const char *name) { return unlinkat(AT_FDCWD, name, AT_REMOVEDIR); }
int fchmodat(int directory, const char *name, mode_t mode, int flags) {
    ONE_NAME(OTHER, directory, name, REAL(fchmodat)(directory, name, mode, flags), R_CHMOD, mode)
}
int chmod(const char *name, mode_t mode) { return fchmodat(AT_FDCWD, name, mode, 0); }
int fchmod(int fd, mode_t mode) {
    char path[PATH_MAX];
    if (!place_of(fd, path)) return REAL(fchmod)(fd, mode);
    enter();
    int happens = turn(OTHER);
    FAILING(happens)
    int result = REAL(fchmod)(fd, mode);
    if (result == 0) note(R_CHMOD, path, "", mode, 0, 0, NULL);
    leave(happens);
    return result;
}

static int rename_at(enum function function, int left, const char *old, int right,
                     const char *new, unsigned flags) {
    char from[PATH_MAX], to[PATH_MAX];
    int watched = place_at(left, old, from) & place_at(right, new, to);
    if (!watched) return REAL(renameat2)(left, old, right, new, flags);
    enter();
    int happens = turn(function);
    FAILING(happens)
    int result = REAL(renameat2)(left, old, right, new, flags);
    if (result == 0) note(flags & RENAME_EXCHANGE ? R_EXCHANGE : R_RENAME, from, to, 0, 0, 0, NULL);
    leave(happens);
    return result;
}

int renameat2(int left, const char *old, int right, const char *new, unsigned flags) {
    return rename_at(RENAMEAT2, left, old, right, new, flags);
}
int renameat(int left, const char *old, int right, const char *new) {
    return rename_at(RENAME, left, old, right, new, 0);
}
int rename(const char *old, const char *new) {
    return rename_at(RENAME, AT_FDCWD, old, AT_FDCWD, new, 0);
}

int symlinkat(const char *target, int directory, const char *name) {
    char path[PATH_MAX];
    if (!place_at(directory, name, path)) return REAL(symlinkat)(target, directory, name);
    enter();
    int happens = turn(OTHER);
    FAILING(happens)
    int result = REAL(symlinkat)(target, directory, name);
    if (result == 0) note(R_SYMLINK, path, target, 0, 0, 0, NULL);
    leave(happens);
    return result;
}
int symlink(const char *target, const char *name) { return symlinkat(target, AT_FDCWD, name); }
int linkat(int left, const char *old, int right, const char *new, int flags) {
    char from[PATH_MAX], to[PATH_MAX];
    int watched = place_at(left, old, from) & place_at(right, new, to);
    if (!watched) return REAL(linkat)(left, old, right, new, flags);
    enter();
    int happens = turn(OTHER);
    FAILING(happens)
    int result = REAL(linkat)(left, old, right, new, flags);
    if (result == 0) note(R_LINK, from, to, 0, 0, 0, NULL);
    leave(happens);
    return result;
}
int link(const char *old, const char *new) { return linkat(AT_FDCWD, old, AT_FDCWD, new, 0); }

/* --- the clock of the wall ------------------------------------------------------------------- */

int clock_gettime(clockid_t which, struct timespec *now) {
    int result = REAL(clock_gettime)(which, now);
    if (result == 0 && which == CLOCK_REALTIME) now->tv_sec += clock_shift;
    return result;
}
time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}
