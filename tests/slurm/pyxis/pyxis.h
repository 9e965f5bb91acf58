/* A stand-in for pyxis, for tests: srun's --container-* flags by a mount namespace, an overlay and a chroot.
 *
 *   options.c  what the user typed
 *   root.c     the file system of the container
 *   plugin.c   when Slurm calls whom
 *
 * It is no sandbox: the user inside is the user outside, and root is root.
 */
#ifndef PYXIS_H
#define PYXIS_H

#include <limits.h>
#include <slurm/spank.h>
#include <stdbool.h>

/* A folder or file of the node, seen in the container. */
struct mount_option {
    char source[PATH_MAX];
    char target[PATH_MAX];
    bool read_only;
};

/* The container that the flags ask for. Texts that were not given are NULL. */
struct container {
    const char *image; /* path of a folder or of a squashfs file */
    const char *name;  /* of a container that outlives the step */
    const char *mounts;
    const char *workdir;
    const char *env;  /* names of variables whose value in the job wins over the image's */
    const char *save; /* accepted by pyxis, refused here */
    bool writable;
    bool mount_home;
};

/* Whether a step runs in a container at all. */
bool in_container(const struct container *container);

/* Registers the flags with srun, sbatch and salloc; what they are given ends up in `container`. */
int register_options(spank_t spank, struct container *container);

/* The first flag that was given and says nothing without an image, NULL if there is none. */
const char *pointless_flag(const struct container *container);

/* Takes the next mount off a list SOURCE[:TARGET[:FLAGS]],... and moves `list` on; 0 at its end, -1 after fail(). */
int next_mount(const char **list, struct mount_option *mount);

/* Whether a variable is in a list NAME,NAME,... */
bool is_listed(const char *list, const char *name);

/* Puts the container's root together below `folder`, in a mount namespace that this process then has for itself.
 * `script` is a file that must be seen inside as well, or NULL; `home` the user's, or NULL. -1 after fail(). */
int make_root(const struct container *container, const char *folder, const char *script, const char *home);

/* Where make_root() has put it, seen from outside. */
const char *root_path(void);

/* Keeps the reason why there is no container (the first one counts), for failure(). Always -1. */
int fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* That reason, NULL if all went well. */
const char *failure(void);

#endif
