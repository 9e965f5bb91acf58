/* The file system of a container: an overlay over the image, and in it what is mounted. */

#include "pyxis.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

static char scratch[PATH_MAX]; /* a tmpfs that is gone with the step */
static char root[PATH_MAX];

static int mount_image(const struct container *container, const char *folder);
static int mount_system(void);
static int mount_listed(const char *list);
static int make_read_only(const char *path);
static int bind(const char *source, const char *target, bool read_only);
static int name_folder(const char *name, const char *folder, char *path);
static int remember_image(const char *folder, const char *image);
static int recall_image(const char *folder, const char *name, char *image);
static int attach_loop(const char *file, char *device);
static int make_folders(const char *path);
static bool is_folder(const char *path);

/* Fills a path; one that is too long is cut off, and then does not exist. */
#define PATH(buffer, ...) ((void)!snprintf(buffer, PATH_MAX, __VA_ARGS__))

int make_root(const struct container *container, const char *folder, const char *script, const char *home)
{
    PATH(scratch, "%s/scratch", folder);
    PATH(root, "%s/root", scratch);
    if (container->save != NULL)
        return fail("--container-save: not possible here");
    if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0)
        return fail("no mount namespace: %s", strerror(errno));
    if (make_folders(scratch) != 0 || mount("pyxis", scratch, "tmpfs", 0, "mode=755") != 0)
        return fail("no scratch at %s: %s", scratch, strerror(errno));
    if (mount_image(container, folder) != 0 || mount_system() != 0)
        return -1;
    if (script != NULL && bind(script, script, true) != 0)
        return -1;
    if (container->mount_home && home != NULL && bind(home, home, false) != 0)
        return -1;
    if (mount_listed(container->mounts) != 0)
        return -1;
    return container->writable ? 0 : make_read_only(root);
}

const char *root_path(void)
{
    return root;
}

/* The image below, what is written above: in the scratch, or where a container with a name is kept. */
static int mount_image(const struct container *container, const char *folder)
{
    char image[PATH_MAX], kept[PATH_MAX], lower[PATH_MAX], device[PATH_MAX], options[4 * PATH_MAX];
    PATH(image, "%s", container->image != NULL ? container->image : "");
    PATH(kept, "%s", scratch);
    if (container->name != NULL) {
        if (name_folder(container->name, folder, kept) != 0 || recall_image(kept, container->name, image) != 0)
            return -1;
    }
    if (image[0] != '/' && image[0] != '.')
        return fail("container image not found: %s (nothing is imported from a registry here)", image);
    struct stat status;
    if (stat(image, &status) != 0)
        return fail("[ERROR] Invalid argument: %s", image); /* the words of enroot */

    PATH(lower, "%s", image);
    if (!S_ISDIR(status.st_mode)) {
        PATH(lower, "%s/image", scratch);
        if (mkdir(lower, 0755) != 0 || attach_loop(image, device) != 0)
            return fail("[ERROR] no loop device for %s: %s", image, strerror(errno));
        if (mount(device, lower, "squashfs", MS_RDONLY, NULL) != 0)
            return fail("[ERROR] Invalid image format: %s: %s", image, strerror(errno));
    }
    char upper[PATH_MAX], work[PATH_MAX];
    PATH(upper, "%s/upper", kept);
    PATH(work, "%s/work", kept);
    if (make_folders(upper) != 0 || make_folders(work) != 0 || make_folders(root) != 0)
        return fail("no room for the container at %s: %s", kept, strerror(errno));
    (void)!snprintf(options, sizeof options, "lowerdir=%s,upperdir=%s,workdir=%s", lower, upper, work);
    if (mount("pyxis", root, "overlay", 0, options) != 0)
        return fail("no overlay over %s: %s", image, strerror(errno));
    return container->name != NULL ? remember_image(kept, image) : 0;
}

/* What a system has besides its files. */
static int mount_system(void)
{
    static const char *const shared[] = {"/proc", "/sys", "/dev"};
    static const char *const own[] = {"/tmp", "/run"};
    static const char *const files[] = {"/etc/hosts", "/etc/resolv.conf"};
    for (size_t i = 0; i < sizeof shared / sizeof *shared; i++) {
        if (bind(shared[i], shared[i], false) != 0)
            return -1;
    }
    for (size_t i = 0; i < sizeof own / sizeof *own; i++) {
        char path[PATH_MAX];
        PATH(path, "%s%s", root, own[i]);
        if (make_folders(path) != 0 || mount("pyxis", path, "tmpfs", 0, "mode=1777") != 0)
            return fail("no %s in the container: %s", own[i], strerror(errno));
    }
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        if (access(files[i], R_OK) == 0 && bind(files[i], files[i], true) != 0)
            return -1;
    }
    return 0;
}

static int mount_listed(const char *list)
{
    struct mount_option option;
    int more;
    while ((more = next_mount(&list, &option)) > 0) {
        if (access(option.source, F_OK) != 0)
            return fail("--container-mounts: source path does not exist: %s", option.source);
        if (bind(option.source, option.target, option.read_only) != 0)
            return -1;
    }
    return more;
}

/* Shows a path of the node in the container, where a place for it is made if there is none. */
static int bind(const char *source, const char *target, bool read_only)
{
    char path[PATH_MAX], parent[PATH_MAX];
    PATH(path, "%s%s", root, target);
    PATH(parent, "%s", path);
    *strrchr(parent, '/') = '\0';
    bool made = is_folder(source) ? make_folders(path) == 0 : make_folders(parent) == 0;
    if (made && !is_folder(source)) {
        int file = open(path, O_CREAT | O_CLOEXEC, 0644);
        made = file >= 0 && close(file) == 0;
    }
    if (!made)
        return fail("no mount point at %s: %s", target, strerror(errno));
    if (mount(source, path, NULL, MS_BIND | MS_REC, NULL) != 0)
        return fail("couldn't mount %s at %s: %s", source, target, strerror(errno));
    return read_only ? make_read_only(path) : 0;
}

/* A remount sets all flags anew, and the kernel refuses to drop some of them. */
static int make_read_only(const char *path)
{
    struct statvfs status;
    if (statvfs(path, &status) != 0)
        return fail("couldn't look at %s: %s", path, strerror(errno));
    unsigned long keep = MS_BIND | MS_REMOUNT | MS_RDONLY;
    keep |= status.f_flag & ST_NOSUID ? MS_NOSUID : 0;
    keep |= status.f_flag & ST_NODEV ? MS_NODEV : 0;
    keep |= status.f_flag & ST_NOEXEC ? MS_NOEXEC : 0;
    if (mount(NULL, path, NULL, keep, NULL) != 0)
        return fail("couldn't make %s read-only: %s", path, strerror(errno));
    return 0;
}

/* Where the container NAME or NAME:FLAG is kept: on this node only. */
static int name_folder(const char *name, const char *folder, char *path)
{
    int length = (int)strcspn(name, ":");
    if (length == 0 || memchr(name, '/', (size_t)length) != NULL)
        return fail("--container-name: invalid name: %s", name);
    PATH(path, "%s/pyxis_%.*s", folder, length, name);
    return 0;
}

/* The image of the container kept in `folder`, as a link; `image` stays as it is where there is none yet. */
static int recall_image(const char *folder, const char *name, char *image)
{
    char link[PATH_MAX];
    PATH(link, "%s/image", folder);
    ssize_t length = readlink(link, image, PATH_MAX - 1);
    if (length >= 0)
        image[length] = '\0';
    else if (image[0] == '\0')
        return fail("a container with name \"pyxis_%.*s\" does not exist", (int)strcspn(name, ":"), name);
    return 0;
}

static int remember_image(const char *folder, const char *image)
{
    char link[PATH_MAX];
    PATH(link, "%s/image", folder);
    if (symlink(image, link) != 0 && errno != EEXIST)
        return fail("couldn't keep the container at %s: %s", folder, strerror(errno));
    return 0;
}

/* A block device of a file, which lets go of it with the last mount. */
static int attach_loop(const char *file, char *device)
{
    int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC), image = open(file, O_RDONLY | O_CLOEXEC);
    struct loop_config config = {
        .fd = (unsigned)image,
        .info = {.lo_flags = LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR},
    };
    int loop = -1;
    while (control >= 0 && image >= 0) {
        int number = ioctl(control, LOOP_CTL_GET_FREE);
        if (number < 0)
            break;
        PATH(device, "/dev/loop%d", number);
        loop = open(device, O_RDONLY | O_CLOEXEC);
        if (loop < 0 || ioctl(loop, LOOP_CONFIGURE, &config) == 0 || errno != EBUSY)
            break;
        close(loop); /* another step was quicker */
    }
    /* The device stays open until this process ends: closed now, it would let go of the file before the mount. */
    int error = errno;
    if (control >= 0)
        close(control);
    if (image >= 0)
        close(image);
    errno = error;
    return loop >= 0 ? 0 : -1;
}

static int make_folders(const char *path)
{
    char part[PATH_MAX];
    PATH(part, "%s", path);
    for (char *end = strchr(part + 1, '/');; end = strchr(end + 1, '/')) {
        if (end != NULL)
            *end = '\0';
        if (mkdir(part, 0755) != 0 && errno != EEXIST && !is_folder(part))
            return -1;
        if (end == NULL)
            return 0;
        *end = '/';
    }
}

static bool is_folder(const char *path)
{
    struct stat status;
    return stat(path, &status) == 0 && S_ISDIR(status.st_mode);
}
