# SPDX-License-Identifier: GPL-2.0
# Where everything goes. DESTDIR is for packages; nothing is started.

D	:= $(DESTDIR)
sbindir	?= /usr/sbin
unitdir	?= /usr/lib/systemd/system
share	:= $(D)/usr/share/khealthd

install: $(O)/khealth
	$(INSTALL) -D -m 755 $(O)/khealth $(D)/usr/bin/khealth
	$(INSTALL) -d $(D)$(sbindir) $(D)$(unitdir) $(D)/etc/khealthd/outputs
	ln -sf ../bin/khealth $(D)$(sbindir)/khealth-alert
	$(INSTALL) -d $(D)/usr/lib/khealthd/outputs
	$(INSTALL) -m 755 outputs/* $(D)/usr/lib/khealthd/outputs
	$(INSTALL) -m 644 lib/post $(D)/usr/lib/khealthd/post
	$(INSTALL) -d $(share)
	$(INSTALL) -m 644 share/severity share/hardened.conf $(share)
	@# What an administrator has changed stays.
	[ -e $(D)/etc/khealthd/khealth.conf ] || \
		$(INSTALL) -m 644 share/khealth.conf $(D)/etc/khealthd/khealth.conf
	[ -e $(D)/etc/khealthd/silences ] || \
		$(INSTALL) -m 644 share/silences $(D)/etc/khealthd/silences
	$(INSTALL) -m 644 units/*.service units/*.socket units/*.timer $(D)$(unitdir)
	$(INSTALL) -D -m 644 units/khealthd.sysusers $(D)/usr/lib/sysusers.d/khealthd.conf
	$(INSTALL) -D -m 644 units/khealthd.tmpfiles $(D)/usr/lib/tmpfiles.d/khealthd.conf
	$(INSTALL) -D -m 644 units/60-khealthd.conf $(D)/usr/lib/sysctl.d/60-khealthd.conf
	$(INSTALL) -d $(share)/prometheus $(share)/grafana
	$(INSTALL) -m 644 fleet/khealthd.rules.yml fleet/alertmanager.yml $(share)/prometheus
	$(INSTALL) -m 644 fleet/khealthd-dashboard.json $(share)/grafana
	$(INSTALL) -D -m 644 khealth.bash \
		$(D)/usr/share/bash-completion/completions/khealth
	$(INSTALL) -d $(D)/usr/share/man/man5 $(D)/usr/share/man/man7 $(D)/usr/share/man/man8
	$(INSTALL) -m 644 man/*.5 $(D)/usr/share/man/man5
	$(INSTALL) -m 644 man/*.7 $(D)/usr/share/man/man7
	$(INSTALL) -m 644 man/*.8 $(D)/usr/share/man/man8
	ln -sf khealth.8 $(D)/usr/share/man/man8/khealth-alert.8
