/* version.h: the version of this build.
 *
 * One constant string, made by `make` from `git describe` (from the file VERSION in a source
 * archive, "unknown" when there is neither). It never changes while the program runs; any thread
 * may read it, nobody frees it.
 *
 *     printf("kadmsg %s\n", version_str());
 */
#pragma once

/* Version text, e.g. "v0.1.0-12-g0123abc". Never NULL or empty. */
const char *version_str(void);
