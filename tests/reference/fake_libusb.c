/* A libusb that lists FAKE_MYRIAD sticks (03e7:2485, bus 1, ports 1.1, 1.2, ...) and lets nobody open them, as for a user
 * without the udev rule. It has the 19 functions that the Myriad plugins of OpenVINO 2021.4 and 2022.2 import. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#define ACCESS (-3)

struct device { int number; };
struct descriptor {
    uint8_t length, type; uint16_t usb; uint8_t class_, subclass, protocol, packet;
    uint16_t vendor, product, device; uint8_t manufacturer, name, serial, configurations;
};
static struct device devices[8];

static int count(void) {
    const char *text = getenv("FAKE_MYRIAD");
    int number = text ? atoi(text) : 0;
    return number < 0 ? 0 : number > 8 ? 8 : number;
}

int libusb_init(void **context) { if (context) *context = devices; return 0; }
void libusb_exit(void *context) { (void)context; }

long libusb_get_device_list(void *context, struct device ***list) {
    int number = count();
    (void)context;
    *list = calloc((size_t)number + 1, sizeof **list);
    for (int i = 0; i < number; i++) { devices[i].number = i + 1; (*list)[i] = &devices[i]; }
    return number;
}
void libusb_free_device_list(struct device **list, int unref) { (void)unref; free(list); }
struct device *libusb_ref_device(struct device *device) { return device; }
void libusb_unref_device(struct device *device) { (void)device; }
int libusb_get_device_descriptor(struct device *device, struct descriptor *out) {
    struct descriptor made = {18, 1, 0x200, 0, 0, 0, 64, 0x03e7, 0x2485, 1, 1, 2, 3, 1};
    (void)device;
    *out = made;
    return 0;
}
uint8_t libusb_get_bus_number(struct device *device) { (void)device; return 1; }
int libusb_get_port_numbers(struct device *device, uint8_t *ports, int length) {
    if (length < 2) return -11;
    ports[0] = 1; ports[1] = (uint8_t)device->number;
    return 2;
}
int libusb_open(struct device *device, void **handle) { (void)device; *handle = NULL; return ACCESS; }
void libusb_close(void *handle) { (void)handle; }
int libusb_get_config_descriptor(struct device *d, uint8_t i, void **out) { (void)d; (void)i; *out = NULL; return ACCESS; }
void libusb_free_config_descriptor(void *config) { (void)config; }
int libusb_set_configuration(void *handle, int number) { (void)handle; (void)number; return ACCESS; }
int libusb_claim_interface(void *handle, int number) { (void)handle; (void)number; return ACCESS; }
int libusb_release_interface(void *handle, int number) { (void)handle; (void)number; return ACCESS; }
int libusb_detach_kernel_driver(void *handle, int number) { (void)handle; (void)number; return ACCESS; }
int libusb_bulk_transfer(void *handle, uint8_t endpoint, uint8_t *data, int length, int *done, unsigned wait) {
    (void)handle; (void)endpoint; (void)data; (void)length; (void)wait;
    if (done) *done = 0;
    return ACCESS;
}
const char *libusb_strerror(int code) { (void)code; return "Access denied (insufficient permissions)"; }
