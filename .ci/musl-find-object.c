/* What gcc's unwinder asks of glibc, for musl: which object has the address, and where the table of
   its frames is. Without an answer every panic aborts. See dlfcn.h of glibc 2.35 or later. */
#define _GNU_SOURCE
#include <link.h>
#include <pthread.h>
#include <stdint.h>

/* The unwinder refers to these weakly, which brings nothing in from a static library, and calls
   them unasked, as glibc has them always. */
__attribute__((used)) static void *const wanted[] = {
    (void *)pthread_once,        (void *)pthread_key_create,   (void *)pthread_getspecific,
    (void *)pthread_setspecific, (void *)pthread_mutex_lock,   (void *)pthread_mutex_unlock,
};

struct found {
    unsigned long long flags;
    void *from, *until;
    void *link_map; /* not known here, and of no use to the unwinder */
    void *eh_frame_hdr;
    unsigned long long reserved[7];
};

struct search {
    uintptr_t address;
    struct found *found;
};

static int look(struct dl_phdr_info *object, size_t size, void *data)
{
    struct search *search = data;
    struct found found = {0};
    (void)size;
    for (int i = 0; i < object->dlpi_phnum; i++) {
        const ElfW(Phdr) *part = &object->dlpi_phdr[i];
        uintptr_t from = object->dlpi_addr + part->p_vaddr;
        if (part->p_type == PT_GNU_EH_FRAME)
            found.eh_frame_hdr = (void *)from;
        else if (part->p_type == PT_LOAD && search->address - from < part->p_memsz) {
            found.from = (void *)from;
            found.until = (void *)(from + part->p_memsz);
        }
    }
    if (!found.from || !found.eh_frame_hdr)
        return 0;
    *search->found = found;
    return 1;
}

int _dl_find_object(void *address, struct found *found)
{
    struct search search = {(uintptr_t)address, found};
    return dl_iterate_phdr(look, &search) ? 0 : -1;
}
