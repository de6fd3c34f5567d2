; How long a port read takes, by where its device lives. A Multiboot guest, 32-bit, no interrupts; results on port E9h as
; "NAME NANOSECONDS" a line, the TSC being the domain clock in nanoseconds.
;   hypervisor   21h, the PIC's mask register
;   dom0         3FFh, COM1's scratch register, as fast as they come
;   dom0-idle    the same after a pause of 2 ms before each, in which Dom0 falls asleep
;   nobody       ECh, which no device claims
bits 32
section .multiboot align=4
        MAGIC equ 0x1badb002
        dd MAGIC, 0, -MAGIC
section .text
global start
start:  mov esp, stack_top
        mov ecx, 10000                  ; warm-up: decode, links, translations
.warm:  mov dx, 0x21
        in al, dx
        loop .warm

        mov esi, name_nobody
        mov dx, 0xec
        mov ecx, 1000000
        call measure
        mov esi, name_hypervisor
        mov dx, 0x21
        mov ecx, 1000000
        call measure
        mov esi, name_dom0
        mov dx, 0x3ff
        mov ecx, 200000
        call measure
        mov esi, name_idle
        mov ecx, 500
        call measure_idle
        mov dx, 0xf4
        mov eax, 16
        out dx, eax
.halt:  hlt
        jmp .halt

measure:                                ; esi: name, dx: port, ecx: reads
        push ecx
        call now
        mov edi, eax
        mov [edx_saved], ebx
        pop ecx
        push ecx
.next:  in al, dx
        dec ecx
        jnz .next
        call now
        sub eax, edi
        sbb ebx, [edx_saved]
        pop ecx
        push edx
        mov edx, ebx
        div ecx
        pop edx
        jmp print

measure_idle:                           ; esi: name, ecx: reads of 3FFh, timed one by one
        push ecx
        xor ebp, ebp                    ; sum
.next:  push ecx
        call now
        lea edi, [eax + 2000000]
.pause: call now
        cmp eax, edi
        js .pause
        call now
        mov edi, eax
        push edx
        mov dx, 0x3ff
        in al, dx
        pop edx
        call now
        sub eax, edi
        add ebp, eax
        pop ecx
        dec ecx
        jnz .next
        pop ecx
        mov eax, ebp
        push edx
        xor edx, edx
        div ecx
        pop edx
        jmp print

now:    push edx                        ; ebx:eax = TSC
        rdtsc
        mov ebx, edx
        pop edx
        ret

print:  push eax                        ; name, a space, eax in decimal, newline
.name:  lodsb
        test al, al
        jz .number
        out 0xe9, al
        jmp .name
.number:mov al, ' '
        out 0xe9, al
        pop eax
        xor ecx, ecx
        mov ebx, 10
.digit: xor edx, edx
        div ebx
        push edx
        inc ecx
        test eax, eax
        jnz .digit
.out:   pop eax
        add al, '0'
        out 0xe9, al
        loop .out
        mov al, 10
        out 0xe9, al
        ret

section .data
name_nobody:     db "nobody", 0
name_hypervisor: db "hypervisor", 0
name_dom0:       db "dom0", 0
name_idle:       db "dom0-idle", 0
edx_saved:       dd 0
section .bss
        resb 4096
stack_top:
